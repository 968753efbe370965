"""How an object fits a box of another aspect."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pics_cli.core.images.cutouts import Fit, fitted_size, paste_object
from pics_cli.core.images.geometry import Box

Bytes = npt.NDArray[np.uint8]
BOX: Box = (20, 30, 60, 50)
TALL = np.dstack([np.full((90, 30, 3), 200, np.uint8), np.full((90, 30), 255, np.uint8)])


def pasted(rgba: Bytes, fit: Fit, region: Box | None = None) -> tuple[int, int, int, int]:
    """The box of what changed on a black canvas: left, top, right, bottom."""
    canvas = np.zeros((100, 100, 3), np.uint8)
    paste_object(canvas, BOX, rgba, fit, region)
    rows, columns = np.nonzero(canvas.any(2))
    assert (canvas[rows, columns] == 200).all()
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize(
    ("rgba", "fit", "region", "expected"),
    [
        (TALL, "contain", None, (36, 30, 43, 50)),
        (TALL, "stretch", None, BOX),
        (TALL, "cover", None, BOX),
        (TALL, "cover", (10, 10, 70, 95), (20, 10, 60, 95)),  # 40 by 120, cut off by the region above and below
        (TALL, "cover", (15, 0, 70, 100), (20, 0, 60, 100)),
        (TALL.transpose(1, 0, 2), "cover", (0, 20, 100, 60), (10, 30, 70, 50)),
        (TALL.transpose(1, 0, 2), "contain", None, (20, 33, 60, 46)),
        (TALL, "contain", (10, 10, 70, 95), (36, 30, 43, 50)),
    ],
)
def test_where_an_object_lies(rgba: Bytes, fit: Fit, region: Box | None, expected: Box) -> None:
    assert pasted(rgba, fit, region) == expected


def test_the_opaque_part_is_what_fits() -> None:
    margin = np.zeros((150, 120, 4), np.uint8)
    margin[40:130, 50:80] = TALL
    margin[10, 10, 3] = 60
    for fit in ("contain", "cover", "stretch"):
        assert pasted(margin, fit) == pasted(TALL, fit)


def test_thin_objects_keep_a_pixel() -> None:
    assert fitted_size((0, 0, 10, 10), (1, 1000)) == (1, 10)
    assert fitted_size((0, 0, 10, 10), (1, 1000), "cover") == (10, 10_000)
    assert fitted_size((0, 0, 7, 3), (1, 1000), "stretch") == (7, 3)
