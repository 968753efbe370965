"""Photographs that textures are cut from: whose pool they are, and what is said if they are missing."""

from __future__ import annotations

import importlib.util

import pytest

from pics_cli.core.images.image_io import RGB
from pics_cli.core.scenes.drawn import colors, patterns, photos
from pics_cli.errors import PicsError


def test_pools_open_only_their_own_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    load_photo, opened = photos.load_photo, set()

    def recorded(name: str) -> RGB:
        opened.add(name)
        return load_photo(name)

    monkeypatch.setattr(photos, "load_photo", recorded)
    for pool in ("train", "held_out"):
        opened.clear()
        for seed in range(12):
            patterns.texture(pool, patterns.LABEL, colors.OBJECT_PALETTES[pool][0], seed, 64)
        assert opened == set(photos.PHOTOS[pool])


def test_missing_photographs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    photos._photo_directory.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PicsError, match="scikit-image, which is not installed") as caught:
        photos.load_photo.__wrapped__("coffee.png")
    assert caught.value.hint == "pip install scikit-image"
    photos._photo_directory.cache_clear()
