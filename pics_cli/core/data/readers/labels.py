"""Reader of label folders: one json a picture, as the research project's SAM script writes them.

`{"image_id", "annotations": [{"segmentation": [[x, y, …]], "bbox": [x, y, w, h], "area", "category_id": 1}]}` in
`patchN/X.json`. The category is always 1 there, whatever the object: it says nothing and is not passed on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from pics_cli.core.data.masks import decode_segmentation, has_polygon, mask_area
from pics_cli.core.data.pictures import picture_size
from pics_cli.core.data.readers.paths import ImagePaths
from pics_cli.core.data.scene import Instance, Item, Scene
from pics_cli.errors import BadSample, PicsError


class _Label(msgspec.Struct, gc=False):
    bbox: tuple[float, float, float, float]
    area: float | None = None
    segmentation: list[list[float]] | dict[str, Any] | None = None


class _Labels(msgspec.Struct, gc=False):
    annotations: list[_Label]
    image_id: int | str | None = None


_DECODER = msgspec.json.Decoder(_Labels)


class LabelReader:
    """Pictures in the order of their label files' names; see `Reader` for the attributes."""

    def __init__(self, base: Path, place: Path, patterns: Sequence[str], split: str) -> None:
        self.place = place
        self._paths = ImagePaths(base, patterns, split)
        self.bad: dict[str, Any] = {"counts": {}, "lines": []}
        self.categories: list[str] = []

    @cached_property
    def _names(self) -> list[str]:
        """Label files relative to the folder, sorted; listed once, and by workers never."""
        try:
            names = sorted(_json_files(self.place, ""))
        except OSError as error:
            raise PicsError(f"{error.filename}: cannot list: {(error.strerror or str(error)).lower()}") from None
        if not names:
            raise PicsError(f"{self.place}: no label files (*.json) in it", "run `pics annotate` to make them")
        return names

    @property
    def source(self) -> dict[str, Any]:
        listing = hashlib.sha256("\n".join(self._names).encode("utf-8", "surrogateescape")).hexdigest()
        return {"format": "labels", "files": len(self._names), "listing": listing}

    def __len__(self) -> int:
        return len(self._names)

    def items(self, start: int, stop: int) -> Sequence[Item]:
        return self._names[start:stop]

    def scene(self, item: Item) -> Scene:
        path = self.place / str(item)
        try:
            labels = _DECODER.decode(path.read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadSample("bad_label_file", f"{path}: {error}") from None
        except OSError as error:
            raise BadSample("bad_label_file", f"{path}: {(error.strerror or str(error)).lower()}") from None
        name = PurePosixPath(str(item)).with_suffix("")
        files = self._paths.files(f"{name}.jpg")
        width, height = _size(files)
        instances = []
        for label in labels.annotations:
            if not label.segmentation or (isinstance(label.segmentation, list) and not has_polygon(label.segmentation)):
                continue
            (x, y, w, h), mask = label.bbox, partial(decode_segmentation, label.segmentation, height, width)
            instances.append(
                Instance(
                    box=(x, y, x + w, y + h),
                    area=mask_area(mask) if label.area is None else label.area,
                    category=None,
                    category_id=None,
                    annotation_id=None,
                    ignored=False,
                    mask=mask,
                    mask_source="sam",
                )
            )
        image_id = labels.image_id if labels.image_id is not None else str(name)
        return Scene(str(name), image_id, files, width, height, tuple(instances))


def _size(files: tuple[Path, ...]) -> tuple[int, int]:
    """Size of the first picture that exists."""
    if not files:
        raise BadSample("missing_image", "no picture pattern of the recipe fits this label file's name")
    for path in files[:-1]:
        try:
            if path.exists():
                return picture_size(path)
        except PermissionError:
            raise BadSample("unreadable_image", f"{path}: permission denied") from None
    return picture_size(files[-1])


def _json_files(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _json_files(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.name.endswith(".json") and not entry.name.startswith("."):
                yield prefix + entry.name
