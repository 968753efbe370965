"""Boxes to masks with Segment Anything."""
