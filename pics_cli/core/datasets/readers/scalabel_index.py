"""Index of a Scalabel json: where each frame's record stands, so that a worker reads single ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from pics_cli.core.datasets.json_records import read_arrays
from pics_cli.core.datasets.json_scanner import JSON_ERRORS
from pics_cli.core.datasets.readers.coco_records import read_flag
from pics_cli.core.datasets.readers.index_cache import INDEX_METADATA, SpanIndex, open_cached_index
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.errors import BadSample

_VERSION = "scalabel 2"

Coordinate = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


class Box2d(msgspec.Struct, gc=False):
    """Corners, the last of which belong to the box."""

    x1: Coordinate
    y1: Coordinate
    x2: Coordinate
    y2: Coordinate


class Poly2d(msgspec.Struct, gc=False):
    """A polygon, or a line; `types` has a letter a vertex: C begins a cubic Bezier curve, of two control points and an
    end, L is the end of a straight line."""

    vertices: list[tuple[float, float]]
    types: str | None = None
    closed: bool | None = True

    @property
    def is_area(self) -> bool:
        """Whether it surrounds something: some programs call a ring that ends where it begins not closed."""
        return self.closed is not False or self.vertices[0] == self.vertices[-1]


class Label(msgspec.Struct, gc=False):
    """One object of a frame; everything but its category may be missing or null."""

    category: str | None = None
    id: str | int | None = None
    attributes: dict[str, Any] | None = None
    box2d: Box2d | None = None
    poly2d: list[Poly2d] | None = None
    rle: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("ignored", "crowd"):  # a flag that is none is a bad record
            self._flag(name)

    @property
    def ignored(self) -> bool:
        """An ignored region."""
        return self._flag("ignored")

    @property
    def crowd(self) -> bool:
        """Several objects in one label."""
        return self._flag("crowd")

    def _flag(self, name: str) -> bool:
        return bool(read_flag((self.attributes or {}).get(name), name))


class Size(msgspec.Struct, gc=False):
    """Of the image, in pixels."""

    width: int
    height: int


class _FrameName(msgspec.Struct, gc=False):
    name: str
    videoName: str | None = None

    @property
    def file_name(self) -> str:
        """The image's, below the video's folder where there is one."""
        return f"{self.videoName}/{self.name}" if self.videoName else self.name

    @property
    def key(self) -> str:
        """The key of the frame's sample: its file name without the ending."""
        return (f"{self.videoName}/" if self.videoName else "") + (self.name.rpartition(".")[0] or self.name)


class Frame(_FrameName, gc=False):
    """One image; `labels` may be missing or null."""

    size: Size | None = None
    labels: list[Label] | None = None


class _Category(msgspec.Struct, gc=False):
    category: str | None = None


class _Categories(msgspec.Struct, gc=False):
    labels: list[_Category] | None = None


# Not strict: numbers may be texts and have a fraction of zeros.
_FRAME = msgspec.json.Decoder(Frame, strict=False)
_NAME, _CATEGORIES = msgspec.json.Decoder(_FrameName), msgspec.json.Decoder(_Categories)


class ScalabelIndex(SpanIndex):
    """A Scalabel json opened through its index.

    Attributes:
        categories: names that occur, in alphabetical order.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path, folder)
        self.categories: list[str] = self.metadata["categories"]

    def frame(self, number: int) -> Frame:
        """A frame's record, from 0.

        Raises:
            BadSample: `bad_frame_record`.
        """
        try:
            return _FRAME.decode(self.read(*self._spans[number].tolist()))
        except JSON_ERRORS as error:
            raise BadSample("bad_frame_record", f"{self.path}: frame {number}: {error}") from None


def open_scalabel_index(path: Path) -> ScalabelIndex:
    """Open the index of a Scalabel json (an object with `frames`, or a bare list), building it first where needed.

    Raises:
        PicsError: the json cannot be read, or the cache folder not written.
    """
    return open_cached_index(path, _VERSION, _build_index, lambda folder: ScalabelIndex(path, folder))


def _build_index(path: Path, folder: Path, source: dict[str, Any]) -> None:
    bad_records, keys, categories = BadRecords(), set[str](), set[str]()
    spans: list[tuple[int, int]] = []
    for batch in read_arrays(path, {"frames": msgspec.Raw}, bare="frames"):
        bad_records.extend("bad_frame_record", batch.errors)
        for record in batch.records:
            span = batch.span(record)
            try:
                frame = _NAME.decode(record)
            except JSON_ERRORS as error:
                bad_records.extend("bad_frame_record", [f"byte {span[0]:,}: {error}"])
                continue
            if frame.key in keys:
                bad_records.extend("duplicate_frame", [f"byte {span[0]:,}: {frame.name} given twice"])
                continue
            keys.add(frame.key)
            spans.append(span)
            try:
                labels = _CATEGORIES.decode(record).labels or ()
            except JSON_ERRORS:
                continue  # the reader names it as a bad sample
            categories.update(label.category for label in labels if label.category)
    np.save(folder / "spans.npy", np.array(spans, np.int64).reshape(-1, 2))
    metadata = {"source": source, "categories": sorted(categories), "bad": bad_records.as_dict()}
    (folder / INDEX_METADATA).write_text(json.dumps(metadata))
