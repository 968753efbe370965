"""A picture resized for the model: what workers do ahead of it, without torch.

H, W: height and width of the picture, s: side of the square that the model sees, n: boxes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pics_cli.core.data.pictures import RGB
from pics_cli.errors import BadSample


class Ready(NamedTuple):
    """A picture made ready for the model.

    Attributes:
        rgb: uint8 [h, w, 3], its longer side s.
        size: (H, W).
        boxes: float64 [n, 4], `x0, y0, x1, y1` in pixels of the picture.
    """

    rgb: RGB
    size: tuple[int, int]
    boxes: npt.NDArray[np.float64]


def make_ready(rgb: RGB, boxes: npt.NDArray[np.float64], side: int) -> Ready:
    """Resize a picture, uint8 [H, W, 3], for a model that sees a square of this side.

    As segment-anything's `ResizeLongestSide.apply_image`: bilinear by Pillow, sides to the nearest pixel.

    Raises:
        BadSample: it is so thin that nothing of it would be left.
    """
    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    across, down = int(width * scale + 0.5), int(height * scale + 0.5)
    if not (across and down):
        raise BadSample("too_thin", f"picture is {width}x{height}: less than a pixel wide at {side}")
    resized = Image.fromarray(rgb).resize((across, down), Image.Resampling.BILINEAR)
    return Ready(np.array(resized), (height, width), boxes)
