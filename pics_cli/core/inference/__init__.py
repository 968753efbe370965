"""Compositing of objects into pictures: `composite` in memory, `pics infer` around it, and the Python API."""
