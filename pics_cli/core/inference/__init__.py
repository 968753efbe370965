"""Compositing of pictures: what `pics infer` does."""
