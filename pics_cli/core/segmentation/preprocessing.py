"""From an image file to the model's input, in worker processes: read, decode and resize it, clip its boxes."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.images.image_io import RGB, decode_image, first_image_size, read_first_existing
from pics_cli.core.recipes.base import digest
from pics_cli.core.recipes.dataset import dataset_identity
from pics_cli.core.segmentation.boxes import AnnotatedBox, AnnotatedImage, BoxSource, clip_boxes, open_boxes
from pics_cli.errors import BadSample


class ResizedImage(NamedTuple):
    """An image at the size of the model's input.

    Attributes:
        rgb: uint8 [h, w, 3], whose longer side is that of the model's square.
        size: (H, W) of the original.
        boxes: float64 [n, 4], `x0, y0, x1, y1` in pixels of the original.
    """

    rgb: RGB
    size: tuple[int, int]
    boxes: npt.NDArray[np.float64]


def resize_for_sam(rgb: RGB, boxes: npt.NDArray[np.float64], side: int) -> ResizedImage:
    """Resize an image, uint8 [H, W, 3], for a model whose input is a square of this side.

    The same as segment-anything's `ResizeLongestSide.apply_image`: bilinear by Pillow, sides rounded to whole pixels.

    Raises:
        BadSample: `too_thin`: less than a pixel wide at that size.
    """
    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    across, down = int(width * scale + 0.5), int(height * scale + 0.5)
    if not (across and down):
        raise BadSample("too_thin", f"picture is {width}x{height}: less than a pixel wide at {side}")
    resized = Image.fromarray(rgb).resize((across, down), Image.Resampling.BILINEAR)
    return ResizedImage(np.array(resized), (height, width), boxes)


class PreparedImage(NamedTuple):
    """A decoded image with the boxes to segment; possibly none.

    Attributes:
        size: (width, height).
        boxes: those that cover a part of the image.
        corners: of these boxes, clipped to the image, float64 [n, 4].
        dropped: for each other box the reason, see `clip_boxes`.
        resized: input of the model; None where there are no boxes.
    """

    annotated: AnnotatedImage
    size: tuple[int, int]
    boxes: list[AnnotatedBox]
    corners: npt.NDArray[np.float64]
    dropped: list[str]
    resized: ResizedImage | None


def prepare(source: DatasetSplit, row: int, side: int) -> PreparedImage | BadSample:
    """Prepare image number `row` of a dataset for a model with an input of this side; a `BadSample` is returned."""
    cv2.setNumThreads(1)
    try:
        annotated = box_source_of(source).picture(row)
        if not annotated.boxes:
            size = annotated.size or first_image_size(annotated.files)
            return PreparedImage(annotated, size, [], np.zeros((0, 4)), [], None)
        rgb = decode_image(read_first_existing(annotated.files), annotated.size).rgb
        height, width = rgb.shape[:2]
        boxes, corners, dropped = clip_boxes(annotated.boxes, width, height)
        resized = resize_for_sam(rgb, corners, side) if boxes else None
        return PreparedImage(annotated, (width, height), boxes, corners, dropped, resized)
    except BadSample as error:
        return error


_opened: tuple[str, BoxSource] | None = None


def box_source_of(source: DatasetSplit) -> BoxSource:
    """The boxes of a dataset, opened once in this process and kept until another dataset is asked for."""
    global _opened  # noqa: PLW0603  (a cache of one)
    raw = source.raw
    path = None if raw is None else str(raw.absolute())
    key = digest({**dataset_identity(source.recipe), "split": source.split, "raw": path})
    if _opened is None or _opened[0] != key:
        _opened = key, open_boxes(source.recipe, source.split, raw)
    return _opened[1]
