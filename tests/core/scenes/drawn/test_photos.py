"""Photographs that textures are cut from: whose pool they are, and what is said if they are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from skimage.data._registry import registry

from pics_cli.core.images.image_io import RGB
from pics_cli.core.runtime.files import file_sha256
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


def test_they_are_those_of_scikit_image() -> None:
    """Which says of each where it is from and under what terms."""
    for name in (*photos.PHOTOS["train"], *photos.PHOTOS["held_out"]):
        assert file_sha256(photos.FOLDER / name) == registry[f"data/{name}"]


def test_a_missing_photograph_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "FOLDER", tmp_path)
    with pytest.raises(PicsError, match=r"coffee.png: cannot be read") as caught:
        photos.load_photo.__wrapped__("coffee.png")
    assert caught.value.hint == "pip install --force-reinstall --no-deps pics-cli"
