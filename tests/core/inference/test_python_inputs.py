"""Pictures as a caller of `PicsPipeline` hands them over are read as their files are."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.making import encoded, smooth, with_orientation
from pics_cli.core.inference.decoding import mask_region
from pics_cli.core.inference.python_inputs import read_reference, read_regions

open_image = Image.open
RGB = smooth(40, 60)
OPAQUE = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])


def test_an_opaque_reference_is_a_photograph_however_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(OPAQUE, "PNG"))
    for value in (path, str(path), OPAQUE, Image.fromarray(OPAQUE), Image.open(path)):
        pixels, notes = read_reference(value, "objects[0]")
        assert np.array_equal(pixels, RGB)
        assert notes == ()


@pytest.mark.parametrize("value", [3, 6, 8])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_turned_mask_however_it_comes(tmp_path: Path, kind: str, value: int) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[8:16, 24:56] = 255
    path = tmp_path / "mask"
    path.write_bytes(encoded(Image.fromarray(mask), kind, exif=with_orientation(value)))
    width, height = (60, 40) if value == 3 else (40, 60)
    expected = {3: (4, 24, 36, 32), 6: (24, 24, 32, 56), 8: (8, 4, 16, 36)}[value]
    lazy, loaded = (Image.open(io.BytesIO(path.read_bytes())) for _ in range(2))
    loaded.load()
    for given in (path, lazy, loaded):
        (region,) = read_regions(None, [given], 1, np.zeros((height, width, 3), np.uint8))
        assert region.box == expected


def test_a_mask_file_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    def counted(file: Any, **options: Any) -> Image.Image:
        opened.append(1)
        return open_image(file, **options)

    monkeypatch.setattr(Image, "open", counted)
    data = encoded(Image.fromarray(RGB[..., 0]), "PNG")
    mask_region(data, "m.png", (60, 40))
    assert len(opened) == 1
