"""What a caller of `PicsPipeline` hands over: pictures, objects, places and order, as paths, PIL images or arrays.

What is wrong with an argument is a ValueError, what is wrong with a picture a BadSample.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from pics_cli.core.images.geometry import Box, check_boxes
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.stored_image import StoredImage, decode_stored, stored_image, to_srgb
from pics_cli.core.inference.cutout import CutReference, ReferenceCutter
from pics_cli.core.inference.decoding import (
    check_mask_size,
    decode_mask,
    decode_reference,
    mask_values,
    reference_pixels,
)
from pics_cli.core.inference.mask_region import MaskRegion, RegionRule, find_kept, find_region
from pics_cli.core.inference.sample import Bytes, CompositeSample, Order
from pics_cli.core.runtime.files import read_file
from pics_cli.core.runtime.storage import location
from pics_cli.errors import BadSample, reason_of

ImageInput = Image.Image | npt.NDArray[Any] | str | Path


def read_inputs(
    image: ImageInput,
    objects: Sequence[ImageInput],
    boxes: Sequence[Sequence[int]] | None,
    masks: Sequence[ImageInput] | None,
    region: RegionRule,
    order: Order | Sequence[int] | None,
    name: str | None,
    num_images: int,
    cutter: ReferenceCutter,
    keep: ImageInput | None = None,
) -> tuple[CompositeSample, list[CutReference]]:
    """A sample from what `PicsPipeline` is called with, its references cut out, and how each of them was.

    Args:
        image, objects, boxes, masks, region, order, name, num_images, keep: as `PicsPipeline` takes them.
        cutter: cuts out the references.

    Raises:
        ValueError, BadSample: see above.
    """
    for argument, given in (("objects", objects), ("masks", masks)):
        if isinstance(given, str | Path | Image.Image):  # a text is a sequence, too: of letters
            raise ValueError(f"{argument}: got one picture, expected a list of pictures, such as [{given!r}]")
    if name is None:
        name = Path(image).stem if isinstance(image, str | Path) else ""
    stored = read_background(image, "image")
    background = to_srgb(stored)
    notes = [f"image: {note}" for note in stored.notes]
    names = [str(value) if isinstance(value, str | Path) else f"objects[{k}]" for k, value in enumerate(objects)]
    read = [read_reference(value, f"objects[{k}]") for k, value in enumerate(objects)]  # all, before the first is cut
    notes += [note for _, own in read for note in own]
    cut = [cutter(picture, own_name) for (picture, _), own_name in zip(read, names, strict=True)]
    regions = read_regions(boxes, masks, len(cut), background, check_region(region))
    notes += [found.note for found in regions if found.note is not None]
    places, references = tuple(found.box for found in regions), tuple(reference.picture for reference in cut)
    candidates, object_order = tuple(range(num_images)), check_order(order, len(cut))
    kept = None
    if keep is not None:
        values, own_name = _read_mask(keep, "keep", (background.shape[1], background.shape[0]))
        kept, note = find_kept(values, own_name, places)
        notes += [] if note is None else [note]
    sample = CompositeSample(name, background, places, references, object_order, candidates, stored, tuple(notes), kept)
    return sample, cut


def read_background(value: ImageInput, name: str) -> StoredImage:
    """A background as it is stored."""
    if isinstance(value, Image.Image | np.ndarray):
        return _stored(value, name)
    data = _read_file(value, name)
    try:
        return decode_stored(data)
    except BadSample as error:
        raise BadSample(error.reason, f"{name}: {value}: {error.detail}") from None


def read_reference(value: ImageInput, name: str) -> tuple[Bytes, tuple[str, ...]]:
    """An object's picture, uint8 [h, w, 3] or, with alpha, [h, w, 4]; and notes on it."""
    if not isinstance(value, Image.Image | np.ndarray):
        return decode_reference(_read_file(value, name), Path(value))
    stored = _stored(value, name)
    try:
        return reference_pixels(stored), tuple(f"{name}: {note}" for note in stored.notes)
    except BadSample as error:
        raise BadSample(error.reason, f"{name}: {error.detail}") from None


def read_regions(
    boxes: Sequence[Sequence[int]] | None,
    masks: Sequence[ImageInput] | None,
    count: int,
    background: RGB,
    rule: RegionRule = "box",
) -> tuple[MaskRegion, ...]:
    """K regions inside the background."""
    height, width = background.shape[:2]
    if (boxes is None) == (masks is None):
        raise ValueError("expected either boxes or masks" + ("" if boxes is None else ", got both"))
    values, kind = (boxes, "boxes") if boxes is not None else (masks or (), "masks")
    if boxes is not None and any(np.ndim(box) == 0 for box in boxes):
        raise ValueError(f"boxes: got {tuple(boxes)}, expected a list of boxes, such as [(x0, y0, x1, y1)]")
    if len(values) != count:
        raise ValueError(f"{len(values)} {kind}, but {count} objects")
    if masks is not None:
        read = [_read_mask(mask, f"masks[{k}]", (width, height)) for k, mask in enumerate(masks)]
        return tuple(find_region(*found, rule) for found in read)
    regions = list[Box]()
    for k, box in enumerate(() if boxes is None else boxes):
        if len(box) != 4 or any(int(value) != value for value in box):
            raise ValueError(f"boxes[{k}]: got {tuple(box)}, expected four whole numbers x0, y0, x1, y1")
        x0, y0, x1, y1 = map(int, box)
        regions.append((x0, y0, x1, y1))
    check_boxes(regions, width, height)
    return tuple(map(MaskRegion, regions))


def _read_mask(value: ImageInput, name: str, size: tuple[int, int]) -> tuple[npt.NDArray[Any], str]:
    """`mask_values`, and what the mask is called in messages."""
    if not isinstance(value, Image.Image | np.ndarray):
        shown = f"{name}: {value}"
        return decode_mask(_read_file(value, name), shown, size), shown
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype == np.bool_:
        values: npt.NDArray[Any] = value
    else:
        values = mask_values(value if isinstance(value, Image.Image) else _from_array(value, name))
    check_mask_size((values.shape[1], values.shape[0]), name, size)
    return np.ascontiguousarray(values), name


def check_region(rule: RegionRule) -> RegionRule:
    """How masks are read."""
    if rule not in get_args(RegionRule):
        raise ValueError(f"region: got {rule!r}, expected {' or '.join(get_args(RegionRule))}")
    return rule


def check_order(order: Order | Sequence[int] | None, count: int) -> Order | None:
    """An order of `count` objects, from back to front."""
    if order is None or order == "auto":
        return order
    if sorted(order) != list(range(count)):
        raise ValueError(f"order: got {order!r}, expected 'auto' or each of {count} objects once, counted from 0")
    return tuple(order)


def _from_array(array: npt.NDArray[Any], name: str) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)) or not array.size:
        raise ValueError(f"{name}: got {array.dtype} {array.shape}, expected uint8 [H, W], [H, W, 3] or [H, W, 4]")
    return Image.fromarray(array)


def _stored(value: Image.Image | npt.NDArray[Any], name: str) -> StoredImage:
    try:
        return stored_image(value if isinstance(value, Image.Image) else _from_array(value, name))
    except BadSample as error:
        raise BadSample(error.reason, f"{name}: {error.detail}") from None


def _read_file(path: str | Path | Any, name: str) -> bytes:
    if not isinstance(path, str | Path):
        raise ValueError(f"{name}: got {type(path).__name__}, expected a PIL image, a NumPy array or a path")
    try:
        return read_file(location(path) if isinstance(path, str) else path)
    except OSError as error:
        raise ValueError(f"{name}: cannot read {path}: {reason_of(error)}") from None
