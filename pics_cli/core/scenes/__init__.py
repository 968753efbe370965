"""Makers of scenes whose truth is known: who hides, carries or holds whom, and what the background looks like alone.

`drawn` draws them from a seed, without any raw files (the data source `synth`).
"""
