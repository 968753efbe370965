"""Scenes drawn from scratch: shaded solids on a ground, with the truth about who hides, carries or holds whom."""
