"""Figures of composites, and the baselines that they are compared with."""
