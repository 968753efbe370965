"""Records of a COCO-style json: as most files have them, and as other programs write them.

Numbers may be texts and have a fraction of zeros, boxes, areas and sizes may be missing, flags be words: what leaves no
doubt becomes a record of the usual form, what does is an error that says why.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any

import msgspec

SHORTEST_SEGMENTATION = 16  # bytes of one that can be drawn; shorter ones are looked at
FIRST_TEXT = (1 << 62) + 1  # ids that are texts have the numbers from here on
BAD_RECORD = {
    "images": "bad_image_record",
    "annotations": "bad_annotation_record",
    "categories": "bad_category_record",
}
_LARGEST = 1 << 62
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}(\.0+)?")

# The form that most files have, within what columns can hold; `RecordMender` mends records of another, or they are bad.
_Id = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 17)]
_Coordinate = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


class ImageRecord(msgspec.Struct, gc=False):
    id: _Id
    width: _Side
    height: _Side
    file_name: str | None = ""
    coco_url: str | None = ""


class AnnotationRecord(msgspec.Struct, gc=False):
    image_id: _Id
    bbox: tuple[_Coordinate, _Coordinate, _Coordinate, _Coordinate]
    category_id: _Id | None = -1
    id: _Id | None = -1
    area: float | None = -1.0
    iscrowd: _Id | bool | None = 0
    ignore: _Id | bool | None = 0
    segmentation: msgspec.Raw = msgspec.Raw()


class CategoryRecord(msgspec.Struct):
    id: int
    name: str


class _LooseImage(msgspec.Struct, gc=False):
    id: Any = None
    width: Any = None
    height: Any = None
    file_name: str | None = ""
    coco_url: str | None = ""


class _LooseAnnotation(msgspec.Struct, gc=False):
    image_id: Any = None
    bbox: Any = None
    category_id: Any = None
    id: Any = None
    area: Any = None
    iscrowd: Any = None
    ignore: Any = None
    segmentation: msgspec.Raw = msgspec.Raw()
    segments_info: msgspec.Raw = msgspec.Raw()


class _LooseCategory(msgspec.Struct):
    id: Any = None
    name: Any = None


class PanopticError(Exception):
    """An annotation is COCO's panoptic one."""


class RecordMender:
    """Makes records of forms that many programs write and that leave no doubt; and numbers ids that are texts.

    Numbers may be texts and have a fraction of zeros, boxes, areas and sizes may be missing, flags be words. Raises
    ValueError for what else there is.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._image: msgspec.json.Decoder[_LooseImage] = msgspec.json.Decoder(_LooseImage)
        self._annotation: msgspec.json.Decoder[_LooseAnnotation] = msgspec.json.Decoder(_LooseAnnotation)
        self._category: msgspec.json.Decoder[_LooseCategory] = msgspec.json.Decoder(_LooseCategory)

    def name(self, number: int) -> int | str:
        """What an id is in the file."""
        at = int(number) - FIRST_TEXT
        return int(number) if at < 0 else self._names[at]

    def image(self, text: msgspec.Raw | memoryview) -> ImageRecord:
        record = self._image.decode(text)
        width, height = _side(record.width, "width"), _side(record.height, "height")
        if not (width and height):
            width = height = 0
        return ImageRecord(self.id(record.id, "id"), width, height, record.file_name, record.coco_url)

    def annotation(self, text: msgspec.Raw | memoryview) -> AnnotationRecord:
        record = self._annotation.decode(text)
        if memoryview(record.segments_info):
            raise PanopticError
        box = _box(record.bbox)
        if box is None and len(memoryview(record.segmentation)) < SHORTEST_SEGMENTATION:
            raise ValueError("neither `bbox` nor `segmentation` is given")
        return AnnotationRecord(
            self.id(record.image_id, "image_id"), box or (math.nan,) * 4,
            -1 if record.category_id is None else self.id(record.category_id, "category_id"),
            -1 if record.id is None else self.id(record.id, "id"), _area(record.area),
            read_flag(record.iscrowd, "iscrowd"), read_flag(record.ignore, "ignore"), record.segmentation,
        )  # fmt: skip

    def category(self, text: msgspec.Raw | memoryview) -> CategoryRecord:
        record = self._category.decode(text)
        if not isinstance(record.name, str | int | float):
            raise ValueError(f"name is {_shown(record.name)}, expected a text")
        return CategoryRecord(self.id(record.id, "id"), str(record.name))

    def id(self, value: Any, what: str) -> int:
        """The number of an id: an integer however written, or one of ours for a text."""
        number = _integer(value)
        if number is None and isinstance(value, str) and value.strip():
            if value not in self.numbers:
                self.numbers[value] = FIRST_TEXT + len(self._names)
                self._names.append(value)
            return self.numbers[value]
        if number is None:
            raise ValueError(f"{what} is {_shown(value)}, expected an integer or a text")
        return number


def _integer(value: Any) -> int | None:
    """An integer of the columns' range, or None."""
    if isinstance(value, str):
        value = int(value.strip().partition(".")[0]) if _INTEGER.fullmatch(value.strip()) else None
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    is_integer = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST
    return value if is_integer else None


def _side(value: Any, what: str) -> int:
    """Width or height; 0 where it is not given."""
    side = 0 if value in (None, "") else _integer(value)
    if side is None or not 0 <= side <= 1 << 17:
        raise ValueError(f"{what} is {_shown(value)}, expected 1 to {1 << 17} pixels")
    return side


def _box(value: Any) -> tuple[float, float, float, float] | None:
    """`x, y, width, height`; None where it is not given, or not in numbers."""
    if not value or (isinstance(value, list) and len(value) == 4 and "" in value):
        return None
    try:
        x, y, width, height = map(float, value)
    except (TypeError, ValueError):
        raise ValueError(f"bbox is {_shown(value)}, expected [x, y, width, height]") from None
    if not all(abs(side) <= 1e9 for side in (x, y, width, height)):
        raise ValueError(f"bbox is {_shown(value)}, expected numbers up to 1e9")
    return x, y, width, height


def _area(value: Any) -> float:
    """An area; -1 where it is not given."""
    try:
        area = -1.0 if value in (None, "") else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"area is {_shown(value)}, expected a number") from None
    return area if math.isfinite(area) else -1.0


def read_flag(value: Any, what: str) -> int:
    """A flag that may be a number, a truth value or its word: 0 or 1; 0 where it is not given.

    Raises:
        ValueError: it is something else; `what` names it.
    """
    if value is None or isinstance(value, bool):
        return int(value or 0)
    flag = {"true": 1, "false": 0, "": 0}.get(value.strip().lower()) if isinstance(value, str) else None
    flag = _integer(value) if flag is None else flag
    if flag is None:
        raise ValueError(f"{what} is {_shown(value)}, expected 0 or 1")
    return int(flag != 0)


def _shown(value: Any) -> str:
    text = "missing" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
