"""On-disk index of a COCO-style json: built once in bounded memory, reopened as memory maps.

Annotations are columns sorted by picture (stable, so that a picture's objects keep their order in the file); a
segmentation stays in the json and is found again by its byte offset.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pics_cli.core.data.readers.cache import META, open_cached
from pics_cli.core.data.readers.index_builder import COLUMNS, NONE, build_index
from pics_cli.core.records import BLOCK_BYTES

VERSION = "coco 3"
Array = npt.NDArray[Any]


class CocoIndex:
    """A COCO json opened through its index.

    Attributes:
        image_id, width, height: int64 [pictures], sorted by id.
        first: int64 [pictures + 1]; picture i owns the annotation rows first[i]:first[i + 1].
        columns: annotation columns by name (see `COLUMNS`), [annotations]; ids and areas that are not given are -1.
        categories: id to name.
        source: size and fingerprint of the json.
        bad: records left out, by reason, with up to 1000 lines on them.
    """

    def __init__(self, json_path: Path, folder: Path) -> None:
        meta = json.loads((folder / META).read_text())
        self.json_path = json_path
        self.categories: dict[int, str] = {int(key): name for key, name in meta["categories"].items()}
        self.source: dict[str, Any] = meta["source"]
        self.bad: dict[str, Any] = meta["bad"]

        def load(name: str) -> Array:
            return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))

        self.image_id, self.width, self.height = load("images.id"), load("images.width"), load("images.height")
        self.first, self._names, self._name_ends = load("first"), load("names"), load("name_ends")
        self.columns = {name: load(f"annotations.{name}") for name in COLUMNS}
        self._json: int | None = None

    def __len__(self) -> int:
        return len(self.image_id)

    def names(self, row: int) -> tuple[str, str]:
        """`file_name` and `coco_url` of a picture, "" where it has none."""
        start = int(self._name_ends[2 * row - 1]) if row else 0
        middle, end = int(self._name_ends[2 * row]), int(self._name_ends[2 * row + 1])
        text = self._names[start:end].tobytes()
        return text[: middle - start].decode(), text[middle - start :].decode()

    def segmentation(self, annotation: int) -> object:
        """The segmentation of an annotation row, as parsed JSON."""
        if self._json is None:
            self._json = os.open(self.json_path, os.O_RDONLY)
        text = os.pread(self._json, int(self.columns["length"][annotation]), int(self.columns["offset"][annotation]))
        return msgspec.json.decode(text)

    def has_masks(self) -> bool:
        """Whether any annotation holds a segmentation."""
        return bool(np.any(self.columns["kind"] != NONE))


def open_index(path: Path, on_build: Callable[[Path], None] | None = None, block_bytes: int = BLOCK_BYTES) -> CocoIndex:
    """Open the index of a json file, building it first where the cache has none for this very file.

    Args:
        path: a COCO-style json with `images`, `annotations` and, usually, `categories`.
        on_build: called before an index is built, which takes a second for every 60 MB or so.
        block_bytes: how much of the json is read at a time.

    Raises:
        PicsError: the json cannot be read, or the cache folder not written.
    """

    def build(folder: Path, source: dict[str, Any]) -> None:
        build_index(path, folder, source, block_bytes)

    return open_cached(path, VERSION, build, lambda folder: CocoIndex(path, folder), on_build)
