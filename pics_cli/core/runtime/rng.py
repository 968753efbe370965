"""Random generators that are functions of seed and keys, never of the process that draws or of the order."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """A generator that is a function of the seed and the keys (sample key, epoch, …) alone."""
    text = "\0".join(map(str, (seed, *keys))).encode("utf-8", "surrogateescape")
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little"))
