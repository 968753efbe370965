"""Masks: COCO segmentations to pixels; pixels to 1-bit PNG and back."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from pics_cli.core.images.geometry import Box
from pics_cli.core.images.image_files import decoding, open_undamaged
from pics_cli.core.images.mask_png import HEADER, grey_part, one_bit_rows
from pics_cli.core.images.png_chunks import SIGNATURE, chunk
from pics_cli.errors import BadSample

Mask = npt.NDArray[np.bool_]
MIN_POLYGON_NUMBERS = 6
# Outlines may be as long as the picture has pixels, and this much longer: 0.7 s for a million.
_FREE_OUTLINE = 100_000
_MERGED = 32


@dataclass(frozen=True, slots=True)
class BoxMask:
    """A mask, stored as the pixels inside its own box.

    Attributes:
        box: tight int box `x0, y0, x1, y1`, half-open; all 0 where the mask is empty.
        pixels: bool [y1 - y0, x1 - x0], contiguous.
        height, width: of the picture.
    """

    box: Box
    pixels: Mask
    height: int
    width: int

    @property
    def area(self) -> int:
        """Number of set pixels."""
        return int(np.count_nonzero(self.pixels))

    def full(self) -> Mask:
        """bool [height, width]."""
        mask = np.zeros((self.height, self.width), np.bool_)
        x0, y0, x1, y1 = self.box
        mask[y0:y1, x0:x1] = self.pixels
        return mask

    def window(self, box: Box) -> Mask:
        """The part of the mask inside a box of the picture: bool, of the box's size."""
        if box == self.box:
            return self.pixels
        left, top, right, bottom = box
        window = np.zeros((bottom - top, right - left), np.bool_)
        own_left, own_top, own_right, own_bottom = self.box
        x0, y0, x1, y1 = max(own_left, left), max(own_top, top), min(own_right, right), min(own_bottom, bottom)
        if x1 > x0 and y1 > y0:
            pixels = self.pixels[y0 - own_top : y1 - own_top, x0 - own_left : x1 - own_left]
            window[y0 - top : y1 - top, x0 - left : x1 - left] = pixels
        return window

    def rle(self) -> dict[str, Any]:
        """COCO's compressed run lengths of the whole mask: `{"size": [height, width], "counts": text}`."""
        x0, y0, x1, y1 = self.box
        columns = np.zeros((min(x1 + 1, self.width) - x0, self.height), np.bool_)
        columns[: x1 - x0, y0:y1] = self.pixels.T
        flat = columns.ravel()
        # Runs of the columns that hold the mask, and the empty ones on either side put to the first and last run.
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1 + x0 * self.height
        ends = [*([x0 * self.height] if flat[:1].any() else []), *edges.tolist(), self.height * self.width]
        counts = np.diff(ends, prepend=0).tolist() if self.area else [self.height * self.width]
        size = [self.height, self.width]
        packed = coco_mask.frPyObjects({"size": size, "counts": counts}, self.height, self.width)
        return {"size": size, "counts": packed["counts"].decode()}

    def png(self) -> bytes:
        """The whole mask as a 1-bit PNG."""
        x0, y0, x1, y1 = self.box
        rows = np.zeros((self.height, 1 + (self.width + 7) // 8), np.uint8)  # each row starts with its filter: none
        left = x0 % 8
        padded = np.zeros((y1 - y0, left + x1 - x0), np.bool_)
        padded[:, left:] = self.pixels
        packed = np.packbits(padded, axis=1)
        rows[y0:y1, 1 + x0 // 8 : 1 + x0 // 8 + packed.shape[1]] = packed
        # By hand: OpenCV's bilevel PNG takes 3 to 4 times as long, and the bytes of large masks would be others.
        header = HEADER.pack(self.width, self.height, 1, 0, 0, 0, 0)
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
        return SIGNATURE + b"".join(chunk(*part) for part in parts)


def mask_iou(a: BoxMask, b: BoxMask) -> float:
    """Intersection over union of two masks of one picture: 0 to 1; 0 where both are empty."""
    low = np.maximum(a.box[:2], b.box[:2])
    high = np.maximum(np.minimum(a.box[2:], b.box[2:]), low)
    shared = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    intersection = int(np.count_nonzero(a.window(shared) & b.window(shared)))
    union = a.area + b.area - intersection
    return intersection / union if union else 0.0


def box_mask(mask: npt.NDArray[Any]) -> BoxMask:
    """Crop a mask (bool or uint8 [H, W]) to its set pixels."""
    height, width = mask.shape
    # boundingRect wants rows; masks from pycocotools are stored by columns, so it gets them transposed.
    if mask.flags.f_contiguous and not mask.flags.c_contiguous:
        y0, x0, box_height, box_width = cv2.boundingRect(mask.T.view(np.uint8))
    else:
        x0, y0, box_width, box_height = cv2.boundingRect(mask.view(np.uint8))
    x1, y1 = x0 + box_width, y0 + box_height
    pixels = np.ascontiguousarray(mask[y0:y1, x0:x1]).astype(np.bool_, copy=False)
    return BoxMask((x0, y0, x1, y1), pixels, height, width)


def decode_segmentation(segmentation: object, height: int, width: int) -> BoxMask:
    """Pixels of a COCO segmentation: polygons, run lengths as a list, or compressed run lengths.

    Polygons are lists of `x, y, …`, as COCO has them; also one such list alone, points `[x, y]`, and either of these
    one level deeper. A list may hold run lengths, too. Polygon parts with fewer than three points or an odd number of
    coordinates hold no area and are left out.

    Raises:
        BadSample: `bad_mask` where nothing usable is in it, its size differs from the picture's, or its outlines are so
            long that they are none.
    """
    try:
        return box_mask(coco_mask.decode(_packed(segmentation, height, width)))
    except ValueError as error:
        raise BadSample("bad_mask", str(error)) from None


def segmentation_area(segmentation: object, height: int, width: int) -> float:
    """Number of pixels of a COCO segmentation, without drawing it; 0, so that it is never chosen, where it is invalid.

    Compressed run lengths are summed unchecked: those that do not fit their picture are noticed when chosen.
    """
    try:
        counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
        if isinstance(counts, str) and counts and not (ord(counts[-1]) - 48) & 32:  # else it would be read past its end
            packed = {"size": [height, width], "counts": counts.encode()}
        else:
            packed = _packed(segmentation, height, width)
        return float(coco_mask.area(packed))
    except (BadSample, ValueError):
        return 0.0


def polygon_parts(segmentation: Sequence[Any], depth: int = 3) -> list[list[Any]]:
    """Outlines as flat lists, from the forms that `decode_segmentation` takes."""
    kinds = set(map(type, segmentation))  # of thousands of numbers: no loop over them
    if list not in kinds:
        return [list(segmentation)]
    if (
        kinds == {list}
        and all(len(point) == 2 for point in segmentation)
        and list not in set(map(type, chain.from_iterable(segmentation)))
    ):
        return [list(chain.from_iterable(segmentation))]
    nested = [part for part in segmentation if isinstance(part, list) and part]
    return [outline for part in nested for outline in polygon_parts(part, depth - 1)] if depth else []


def has_polygon(segmentation: Sequence[Sequence[float]]) -> bool:
    """Whether any part of a polygon segmentation can be drawn."""
    return any(len(part) >= MIN_POLYGON_NUMBERS and len(part) % 2 == 0 for part in segmentation)


def decode_mask_png(data: bytes, name: str, size: tuple[int, int]) -> Mask:
    """A mask member of a shard (1-bit or 8-bit grey) as bool [H, W]: set above half of the range.

    Args:
        data: the member.
        name: of the member, for messages.
        size: the (width, height) that it must have, compared before anything is decoded.

    Raises:
        BadSample: `bad_mask` where it cannot be decoded, `mask_size`.
    """
    with decoding(f"{name}: ", "bad_mask"):
        width, height = open_undamaged(data).size
    if (width, height) != size:
        raise BadSample("mask_size", f"{name} is {width}x{height}, its picture {size[0]}x{size[1]} (width x height)")
    with decoding(f"{name}: ", "bad_mask"):
        mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise BadSample("bad_mask", f"{name}: not a picture")
    return mask > 127


def decode_box_mask(data: bytes, name: str, size: tuple[int, int]) -> BoxMask:
    """A mask member of a shard; arguments and errors as those of `decode_mask_png`.

    What `BoxMask.png` and OpenCV write is unpacked inside the mask's box alone, which is several times faster.
    """
    width, height = size
    empty = BoxMask((0, 0, 0, 0), np.zeros((0, 0), np.bool_), height, width)
    if (grey := grey_part(data, size)) is not None:
        left, top, values = grey
        part = box_mask(values > 127) if values.size else empty
        x0, y0, x1, y1 = part.box
        box = (x0 + left, y0 + top, x1 + left, y1 + top) if part.area else empty.box
        return BoxMask(box, part.pixels, height, width)
    rows = one_bit_rows(data, size)
    if rows is None:
        return box_mask(decode_mask_png(data, name, size))
    set_rows = np.flatnonzero(rows.any(axis=1))
    set_columns = np.flatnonzero(np.unpackbits(np.bitwise_or.reduce(rows, axis=0), count=width))
    if not len(set_rows) or not len(set_columns):
        return empty
    x0, y0, x1, y1 = int(set_columns[0]), int(set_rows[0]), int(set_columns[-1]) + 1, int(set_rows[-1]) + 1
    left = x0 // 8
    bits = np.unpackbits(rows[y0:y1, left : (x1 + 7) // 8], axis=1)
    pixels = np.ascontiguousarray(bits[:, x0 - 8 * left : x1 - 8 * left]).view(np.bool_)
    return BoxMask((x0, y0, x1, y1), pixels, height, width)


def _packed(segmentation: object, height: int, width: int) -> dict[str, Any]:
    """pycocotools' own form of a segmentation, checked."""
    if isinstance(segmentation, list):
        lengths = [part for part in segmentation if isinstance(part, dict)]
        if lengths and len(lengths) == len(segmentation):
            return _merge([_run_lengths(part, height, width) for part in lengths])
        return _polygons(segmentation, height, width)
    if isinstance(segmentation, dict):
        return _run_lengths(segmentation, height, width)
    raise BadSample("bad_mask", f"segmentation is {type(segmentation).__name__}, expected polygons or run lengths")


def _polygons(segmentation: list[Any], height: int, width: int) -> dict[str, Any]:
    parts = [part for part in polygon_parts(segmentation) if has_polygon([part])]
    if not parts:
        raise BadSample("bad_mask", "no polygon with three points or more")
    # pycocotools draws outlines point by point, in memory it does not check and 32-bit numbers.
    limit = 10 * max(height, width) + 1000
    if not all(set(map(type, part)) <= {int, float} and -limit < min(part) <= max(part) < limit for part in parts):
        raise BadSample("bad_mask", "polygon coordinates that are no numbers, or far outside the picture")
    longest = height * width + _FREE_OUTLINE
    # The first bound is quick, and only wild outlines are beyond it.
    if (
        sum(len(part) // 2 * (max(part) - min(part) + 1) for part in parts) > longest
        and (length := sum(map(_outline_length, parts))) > longest
    ):
        raise BadSample("bad_mask", f"polygons with outlines of {length:,.0f} pixels, more than the picture has")
    return _merge(coco_mask.frPyObjects(parts, height, width))


def _outline_length(part: list[float]) -> float:
    """Pixels that pycocotools walks through to draw an outline, five times each."""
    points = np.array(part, np.float64).reshape(-1, 2)
    steps = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1) + 1
    return float(steps.sum())


def _merge(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The union of run lengths: of a few at a time, since each step costs the length of what is merged already."""
    while len(parts) > 1:
        parts = [coco_mask.merge(parts[i : i + _MERGED]) for i in range(0, len(parts), _MERGED)]
    return parts[0]


def _run_lengths(segmentation: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise BadSample("bad_mask", f"run lengths for height, width {size}, picture has {[height, width]}")
    packed: dict[str, Any]
    if isinstance(counts, list):
        # pycocotools trusts the sum and would write past its buffer.
        if not all(isinstance(n, int) and n >= 0 for n in counts) or sum(counts) != height * width:
            raise BadSample("bad_mask", f"run lengths do not add up to {height} x {width}")
        packed = coco_mask.frPyObjects(segmentation, height, width)
        return packed
    if isinstance(counts, str | bytes):
        packed = {"size": size, "counts": counts.encode() if isinstance(counts, str) else counts}
        if _covered_pixels(packed["counts"]) != height * width:
            raise BadSample("bad_mask", f"compressed run lengths do not add up to {height} x {width}")
        return packed
    raise BadSample("bad_mask", f"counts are {type(counts).__name__}, expected a list or a string")


def _covered_pixels(counts: bytes) -> int:
    """Sum of compressed run lengths, -1 where they are malformed.

    COCO's format: five bits a character from "0" on, the sixth says that more follow; two's complement; from the fourth
    run on, the difference to the run before the last. pycocotools decodes lengths that fall short without a word.
    """
    bits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(bits & 32 == 0)
    if not len(ends) or ends[-1] != len(bits) - 1 or bits.min() < 0 or bits.max() > 63:
        return -1
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        return -1
    digit = np.arange(len(bits)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((bits & 31) << (5 * digit), starts)
    runs -= np.where(bits[ends] & 16, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return int(runs.sum()) if runs.min() >= 0 else -1
