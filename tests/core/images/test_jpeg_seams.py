"""Pictures of which all that follows some block is lighter, darker or of another colour, and pictures as they are."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.making import RGB, smooth
from pics_cli.core.images import jpeg_seams
from pics_cli.core.images.jpeg_seams import find_seam

BLOCKS = [(8, 8), (16, 8), (16, 16)]


def grainy(height: int = 240, width: int = 352, seed: int = 0) -> RGB:
    grain = np.random.default_rng(seed).normal(0, 6, (height, width, 1))
    return np.clip(smooth(height, width, seed) * 0.6 + 50 + grain, 0, 255).astype(np.uint8)


def shifted(picture: RGB, block: tuple[int, int], row: int, column: int, by: tuple[int, ...]) -> RGB:
    """From the block of this row and column on, in the order of the file."""
    values = picture.astype(int)
    y, x = row * block[1], column * block[0]
    values[y : y + block[1], x:] += by
    values[y + block[1] :] += by
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("by", [(30, 30, 30), (-40, -40, -40), (0, -13, 70), (45, -28, 0)])
def test_what_follows_a_block_is_another(block: tuple[int, int], by: tuple[int, ...]) -> None:
    for seed, (row, share) in enumerate([(3, 0.2), (6, 0.5), (9, 0.9)]):
        picture = shifted(grainy(seed=seed), block, row, round(share * 352 / block[0]), by)
        assert find_seam(picture, block) == row * block[1]


def test_of_cmyk_each_ink_is_looked_at() -> None:
    ink = np.dstack([grainy(), np.full((240, 352, 1), 255, np.uint8)])
    assert find_seam(ink, (8, 8)) is None
    assert find_seam(shifted(ink, (8, 8), 11, 20, (0, 40, 0, 0)), (8, 8)) == 88


@pytest.mark.parametrize("block", BLOCKS)
def test_pictures_as_they_are(block: tuple[int, int]) -> None:
    for seed in range(20):
        picture = grainy(seed=seed)
        assert find_seam(picture, block) is None
        bars = picture.copy()
        bars[:48] = 0
        bars[-48:] = 255
        assert find_seam(bars, block) is None
        window = picture.copy()
        window[64:160, 96:256] //= 2
        assert find_seam(window, block) is None
    rng = np.random.default_rng(0)
    for _ in range(200):  # drawings on the grid of blocks have seams of every kind
        drawing = np.full((192, 256, 3), rng.integers(0, 256, 3), np.uint8)
        for x0, y0, x1, y1 in rng.integers(0, 17, (30, 4)) * 16:
            drawing[min(y0, y1) : max(y0, y1), min(x0, x1) : max(x0, x1)] = rng.integers(0, 256, 3)
        assert find_seam(drawing, block) is None
    assert find_seam(np.zeros((1, 1, 3), np.uint8), block) is None
    assert find_seam(grainy(24, 600), block) is None
    assert find_seam(grainy(600, 24), block) is None


@pytest.mark.parametrize("block", BLOCKS)
def test_looking_at_whole_lines_first_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch, block: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    pictures = []
    for seed in range(80):  # steps about as high as those that count, of which the column varies
        by = tuple(rng.integers(12, 28) * rng.choice((-1, 0, 1), 3))
        pictures.append(shifted(grainy(seed=seed), block, 6, int(rng.integers(1, 352 // block[0])), by))
    found = [find_seam(picture, block) for picture in pictures]
    monkeypatch.setattr(jpeg_seams, "_has_step", lambda *_: True)
    assert found == [find_seam(picture, block) for picture in pictures]
    assert 5 < sum(row is not None for row in found) < 75
