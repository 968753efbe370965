"""Pairwise image compositing with spatial interactions (PICS), from raw datasets to figures."""

__version__ = "0.1.0"
