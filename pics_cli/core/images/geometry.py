"""Boxes (`x0, y0, x1, y1`, half-open, in pixels), and the letterbox: the square that a network sees of a picture.

N, M: numbers of boxes, S: size of the network's square.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
Bytes = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
Relation = Literal["apart", "touching", "overlapping", "containing"]

# How far a side of the inner box may stand out (DESIGN §2): annotated boxes are seldom tighter than that.
CONTAINED_SLACK = 2.0


def box_iou(a_N4: FloatArray, b_M4: FloatArray) -> FloatArray:
    """Intersection over union of every box of a with every box of b: float [N, M] in [0, 1]; 0 for empty boxes."""
    intersection = shared_area(a_N4, b_M4)
    union = box_area(a_N4)[:, None] + box_area(b_M4)[None] - intersection
    iou: FloatArray = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return iou


def iou_of_two(a: Sequence[float], b: Sequence[float]) -> float:
    """`box_iou` of one box with another, in plain numbers: arrays of one box would take fifty times as long."""
    width, height = (max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]), 0) for k in (0, 1))
    shared = width * height
    area_a, area_b = (max(box[2] - box[0], 0) * max(box[3] - box[1], 0) for box in (a, b))
    union = area_a + area_b - shared
    return shared / union if union > 0 else 0.0


def shared_area(a_N4: FloatArray, b_M4: FloatArray) -> FloatArray:
    """Area that every box of a has in common with every box of b: float [N, M]."""
    width, height = (  # side by side: axes of length two would take ten times as long
        np.maximum(np.minimum.outer(a_N4[:, k + 2], b_M4[:, k + 2]) - np.maximum.outer(a_N4[:, k], b_M4[:, k]), 0)
        for k in (0, 1)
    )
    area: FloatArray = width * height
    return area


def box_area(boxes_N4: FloatArray) -> FloatArray:
    """Areas, float [N]; 0 where a box is empty or turned inside out."""
    area: FloatArray = np.prod(np.clip(boxes_N4[:, 2:] - boxes_N4[:, :2], 0, None), axis=1)
    return area


def is_contained(inner_N4: FloatArray, outer_M4: FloatArray, slack: float = CONTAINED_SLACK) -> npt.NDArray[np.bool_]:
    """bool [N, M]: whether each side of box n lies inside box m or within `slack` pixels of it."""
    inside: npt.NDArray[np.bool_] = np.ones((len(inner_N4), len(outer_M4)), np.bool_)
    for k in (0, 1):
        inside &= np.greater_equal.outer(inner_N4[:, k], outer_M4[:, k] - slack)
        inside &= np.less_equal.outer(inner_N4[:, k + 2], outer_M4[:, k + 2] + slack)
    return inside


def is_nested(a_N4: FloatArray, b_M4: FloatArray) -> npt.NDArray[np.bool_]:
    """bool [N, M]: whether one of the two boxes lies inside the other."""
    either: npt.NDArray[np.bool_] = is_contained(a_N4, b_M4) | is_contained(b_M4, a_N4).T
    return either


def box_relation(a: Sequence[float], b: Sequence[float]) -> Relation:
    """Relation of two boxes, the first that holds.

    containing: one inside the other (within 2 px); overlapping: they share area; touching: the gap between them is at
    most 2 px in both directions; apart: none of these.
    """

    def is_inside(inner: Sequence[float], outer: Sequence[float]) -> bool:
        return all(
            inner[k] >= outer[k] - CONTAINED_SLACK and inner[k + 2] <= outer[k + 2] + CONTAINED_SLACK for k in (0, 1)
        )

    if is_inside(a, b) or is_inside(b, a):
        return "containing"
    gap = max(max(a[k], b[k]) - min(a[k + 2], b[k + 2]) for k in (0, 1))
    if gap < 0:
        return "overlapping"
    return "touching" if gap <= CONTAINED_SLACK else "apart"


def check_boxes(boxes: Sequence[Box], width: int, height: int) -> None:
    """Check that boxes hold pixels and lie inside a picture of this size.

    Raises:
        ValueError: no boxes, one that is empty, or one that reaches outside.
    """
    if not boxes:
        raise ValueError("no boxes: at least one object is needed")
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        name = f"box {k} ({x0}, {y0}, {x1}, {y1})"
        if x1 <= x0 or y1 <= y0:
            raise ValueError(f"{name} is empty: expected x0 < x1 and y0 < y1, two corners, not width and height")
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            raise ValueError(f"{name} reaches outside the picture, which is {width}x{height}")


def clip_box(box: Box, width: int, height: int) -> Box:
    """The part of a box that lies in a picture of this size."""
    x0, y0, x1, y1 = box
    return max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)


def enclosing_box(boxes: Sequence[Box]) -> Box:
    """The box around all boxes."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return int(min(left)), int(min(top)), int(max(right)), int(max(bottom))


def scale_box(box: Box, factor: float) -> Box:
    """A box with its sides times `factor` about its middle, to the nearest pixel; one that had pixels keeps some."""
    x0, y0, x1, y1 = box
    dx = min(round((x1 - x0) * (1 - factor) / 2), (x1 - x0 - 1) // 2)
    dy = min(round((y1 - y0) * (1 - factor) / 2), (y1 - y0 - 1) // 2)
    return x0 + dx, y0 + dy, x1 - dx, y1 - dy


def order_by_lower_edge(boxes: Sequence[Box]) -> list[int]:
    """Guess of the order from back to front, as indices: the box that reaches lower is nearer."""
    return sorted(range(len(boxes)), key=lambda k: boxes[k][3])


@lru_cache(maxsize=64)
def _nearest_pixels(side: int, size: int) -> npt.NDArray[np.float64]:
    """float [S]: which pixel of a square of `side` each pixel of one of `size` shows; not to be written to."""
    nearest: npt.NDArray[np.float64] = np.floor(np.arange(size) * (1.0 / (size / side)))
    return nearest


class Letterbox(NamedTuple):
    """A picture padded to a centred square (the smaller half first), then resized to S: the published preprocessing.

    Attributes:
        width, height: of the picture.
        size: S.
    """

    width: int
    height: int
    size: int

    @property
    def side(self) -> int:
        """Side of the square before it is resized."""
        return max(self.width, self.height)

    @property
    def left(self) -> int:
        """Columns of padding before the picture."""
        return (self.side - self.width) // 2

    @property
    def top(self) -> int:
        """Rows of padding above the picture."""
        return (self.side - self.height) // 2

    def forward(self, picture: Bytes, fill: int = 0, antialias: bool = False) -> Bytes:
        """uint8 [height, width, 3] to [S, S, 3]; arguments as those of `pad` and `resize`."""
        return self.resize(self.pad(picture, fill), antialias)

    def pad(self, picture: Bytes, fill: int = 0) -> Bytes:
        """uint8 [height, width, 3] to a new [side, side, 3] with `fill` around it."""
        right, bottom = self.side - self.width - self.left, self.side - self.height - self.top
        sides = (self.top, bottom, self.left, right)
        return cv2.copyMakeBorder(picture, *sides, cv2.BORDER_CONSTANT, value=(fill,) * 3).astype(np.uint8, copy=False)

    def content(self, square: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The picture's part of a padded square, as a view: [side, side, 3] to [height, width, 3]."""
        return square[self.top : self.top + self.height, self.left : self.left + self.width]

    def resize(self, square: Bytes, antialias: bool = False) -> Bytes:
        """uint8 [side, side, 3] to [S, S, 3].

        Args:
            square: a padded picture.
            antialias: False: bilinear at any ratio, as published, which aliases when it shrinks; True: shrinks by area.
        """
        interpolation = cv2.INTER_AREA if antialias and self.side > self.size else cv2.INTER_LINEAR
        return cv2.resize(square, (self.size, self.size), interpolation=interpolation).astype(np.uint8, copy=False)

    def forward_box(self, box: Box) -> Box:
        """The pixels of the S x S square whose nearest pixel of the picture lies in a box: a box, or an empty one.

        OpenCV's nearest neighbour is pixel floor(i * side / S), in its own floating point.
        """
        x0, y0, x1, y1 = box
        edges = (x0 + self.left, y0 + self.top, x1 + self.left, y1 + self.top)
        x0, y0, x1, y1 = np.searchsorted(_nearest_pixels(self.side, self.size), edges).tolist()
        return x0, y0, x1, y1

    def inverse(self, square: Bytes) -> Bytes:
        """The network's picture, uint8 [S, S, 3], at the picture's size without padding: [height, width, 3].

        Shrinks by area, enlarges bicubically. What the network painted over the padding is left out: pixels that are
        not of the picture alone are first replaced by the nearest that are, so that no dark rim comes along.
        """
        return self._inverse(square, cv2.INTER_CUBIC)

    def inverse_map(self, square: npt.NDArray[np.float32], part: Box | None = None) -> npt.NDArray[np.float32]:
        """As `inverse` for smooth values, such as blend weights: enlarges bilinearly.

        Args:
            square: float32 [S, S] or [S, S, n].
            part: of the picture, inside it; None: all of it. A pixel has the same value in any part, to the bit, which
                OpenCV's enlarging does not give.

        Returns:
            float32 of the part's size: [height, width] or [height, width, n].
        """
        x0, y0, x1, y1 = part or (0, 0, self.width, self.height)
        if self.side < self.size:
            return np.ascontiguousarray(self._inverse(square, cv2.INTER_LINEAR)[y0:y1, x0:x1])
        rows = self._unpadded(self.top, self.height), y0 + self.top, y1 + self.top
        columns = self._unpadded(self.left, self.width), x0 + self.left, x1 + self.left
        upper, lower, down = self._neighbours(*rows, square.ndim)
        left, right, across = self._neighbours(*columns, square.ndim)
        first, last = int(upper.min()), int(lower.max()) + 1  # a block of rows needs few of the square's
        across = across.swapaxes(0, 1)
        wide = square[first:last, left] * (1 - across) + square[first:last, right] * across
        values: npt.NDArray[np.float32] = wide[upper - first] * (1 - down) + wide[lower - first] * down
        return values

    def _neighbours(
        self, unpadded: npt.NDArray[np.intp], first: int, last: int, dimensions: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """For rows first to last of the padded picture the two of the square around each, and the second one's weight.

        The weights are float32 [n, 1, …], of so many dimensions.
        """
        middles = (np.arange(first, last) + 0.5) * (self.size / self.side) - 0.5
        before = np.floor(middles)
        weights = (middles - before).astype(np.float32).reshape(-1, *(1,) * (dimensions - 1))
        index = before.astype(np.intp)
        near, far = (np.clip(each, 0, self.size - 1) for each in (index, index + 1))
        return unpadded[near], unpadded[far], weights

    def _inverse(self, square: npt.NDArray[Any], enlarge: int) -> npt.NDArray[Any]:
        rows, columns = self._unpadded(self.top, self.height), self._unpadded(self.left, self.width)
        interpolation = cv2.INTER_AREA if self.side < self.size else enlarge
        resized = cv2.resize(square[rows][:, columns], (self.side, self.side), interpolation=interpolation)
        return self.content(resized)

    def _unpadded(self, start: int, length: int) -> npt.NDArray[np.intp]:
        """int [S]: for each row (or column) of the square the nearest one that `forward` made without padding."""
        ratio = self.side / self.size
        first = int(np.ceil((start + 0.5) / ratio - 0.5)) if start else 0
        last = int(np.floor((start + length - 0.5) / ratio - 0.5)) if start + length < self.side else self.size - 1
        if last < first:  # the picture is too thin for a row of its own
            first = last = min(int((start + length / 2) / ratio), self.size - 1)
        return np.clip(np.arange(self.size), first, last)
