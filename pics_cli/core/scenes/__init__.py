"""Generators of scenes with known truth: which object occludes, supports or contains which, and the clean background.

`drawn` draws them from a seed, without any raw files (the data source `synth`).
"""
