"""What all readers have in common, and what those of folders with one annotation file an image share."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pics_cli.core.datasets.json_scanner import JSON_ERRORS
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import ItemId, Scene
from pics_cli.core.images.masks import BoxMask
from pics_cli.core.recipes.dataset import DatasetRecipe
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.core.runtime.files import as_remote, read_file
from pics_cli.core.runtime.manifest import MANIFEST, read_manifest
from pics_cli.errors import BadSample, PicsError, reason_of

T = TypeVar("T")


@dataclass(frozen=True)
class DatasetSplit:
    """Which images: a recipe, a split of it and the raw folder (None where the format needs none)."""

    recipe: DatasetRecipe
    split: str
    raw: Path | None


class Reader(ABC):
    """One split of a raw dataset. Opening one is cheap, so that every worker opens its own.

    Attributes:
        annotations: the file or folder that the annotations are read from; None where scenes are drawn.
        source: what tells this input from another, for the manifest.
        bad_records: records left out while indexing.
        categories: every category name, in the data's order; empty where the data names none.
        crowds: how many objects are marked as crowds, and of how many; None where that is not known.
        unread: other annotation files that the recipe names and that are there.
    """

    annotations: Path | None
    crowds: tuple[int, int] | None = None
    unread: tuple[Path, ...] = ()
    source: dict[str, Any]
    bad_records: BadRecords
    categories: Sequence[str]

    @property
    def annotation_files(self) -> Sequence[Path]:
        """What the annotations are read from."""
        return [self.annotations] if self.annotations else []

    @abstractmethod
    def __len__(self) -> int:
        """Images of the split."""

    def item_ids(self, start: int, stop: int) -> Sequence[ItemId]:
        """Ids of the images start to stop, in the split's order: their numbers, unless a reader has better ones."""
        return range(start, min(stop, len(self)))

    @abstractmethod
    def scene(self, item_id: ItemId) -> Scene:
        """The image of that id, masks not decoded yet.

        Raises:
            BadSample: its annotation cannot be used.
        """


def no_picture(annotations: Path | None) -> PicsError:
    """That a dataset's annotations list no picture."""
    return PicsError(f"{annotations}: lists no picture", "is this another dataset's file?")


def known_mask(decode: Callable[[], BoxMask]) -> BoxMask | None:
    """A mask that is decoded before its object is chosen, for its box; None where it is empty or invalid."""
    try:
        mask = decode()
    except BadSample:
        return None
    return mask if mask.area else None


def read_annotation(path: Path) -> bytes:
    """Bytes of one image's annotation file.

    Raises:
        BadSample: `bad_annotation_file`.
    """
    try:
        return read_file(path)
    except OSError as error:
        raise BadSample("bad_annotation_file", f"{path}: {reason_of(error)}") from None


def _is_result(folder: Path) -> bool:
    """Whether a folder was written by pics, by its manifest."""
    try:
        return read_manifest(folder) is not None
    except PicsError:
        return False


class FolderReader(Reader):
    """Images in the order of their annotation files' paths, which are their ids.

    Args:
        files: where the folder and its images lie.
        format_name: of the source, for the manifest.
        suffix: how the names of annotation files end.
        hint: what to do where the folder holds no such file.
    """

    categories: Sequence[str] = ()

    def __init__(self, files: SplitFiles, format_name: str, suffix: str, hint: str) -> None:
        self.annotations: Path = files.annotations
        self.bad_records = BadRecords()
        self._files, self._format, self._suffix, self._hint = files, format_name, suffix, hint

    @cached_property
    def _names(self) -> list[str]:
        """Annotation files relative to the folder, sorted; listed once, and by workers never."""
        try:
            names = sorted(self._walk(self.annotations, "", ()))
        except OSError as error:
            raise PicsError(f"{error.filename}: cannot list: {reason_of(error)}") from None
        if not names:
            raise PicsError(f"{self.annotations}: no annotation files (*{self._suffix}) in it", self._hint)
        return names

    def _walk(self, folder: Path, prefix: str, parents: tuple[tuple[int, int], ...]) -> Iterator[str]:
        if remote := as_remote(folder):
            yield from self._select(folder, list(remote.files_below()))
            return
        state = folder.stat()
        identity = (state.st_dev, state.st_ino)
        if identity in parents or (prefix and _is_result(folder)):  # a link to a folder around it; shards, say
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):  # left by editors and file managers
                    continue
                if entry.is_dir():
                    yield from self._walk(Path(entry.path), f"{prefix}{entry.name}/", (*parents, identity))
                elif entry.name.endswith(self._suffix):
                    yield prefix + entry.name

    def _select(self, folder: Path, names: list[str]) -> Iterator[str]:
        """What `_walk` takes of the names of all files of a store below the folder."""
        names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
        parents = [name.removesuffix(MANIFEST) for name in names if name.endswith(f"/{MANIFEST}")]
        results = tuple(parent for parent in parents if _is_result(folder / parent.rstrip("/")))
        yield from (name for name in names if name.endswith(self._suffix) and not name.startswith(results))

    @property
    def source(self) -> dict[str, Any]:  # type: ignore[override]
        """How many files, and a hash of their names."""
        listing = hashlib.sha256("\n".join(self._names).encode("utf-8", "surrogateescape")).hexdigest()
        return {"format": self._format, "files": len(self._names), "listing": listing}

    def __len__(self) -> int:
        return len(self._names)

    def item_ids(self, start: int, stop: int) -> Sequence[ItemId]:
        """Paths of the annotation files start to stop, relative to the folder."""
        return self._names[start:stop]

    def _path(self, item_id: ItemId) -> Path:
        return self.annotations / str(item_id)

    def _read(self, item_id: ItemId) -> bytes:
        return read_annotation(self._path(item_id))

    def _decode(self, item_id: ItemId, decoder: msgspec.json.Decoder[T]) -> T:
        """The contents of an annotation file that is JSON."""
        try:
            data = self._read(item_id)
            encoding = json.detect_encoding(data[:4])
            return decoder.decode(data if encoding == "utf-8" else data.decode(encoding))
        except JSON_ERRORS as error:
            raise BadSample("bad_annotation_file", f"{self._path(item_id)}: {error}") from None

    def _image_paths(self, item_id: ItemId) -> tuple[Path, ...]:
        """Where the image of an annotation file may lie."""
        return self._files.image_paths(str(item_id), suffix=self._suffix, is_shared=self._is_shared)

    def _is_shared(self, name: str) -> bool:
        """Whether annotation files of several folders have the name of a picture, or of one of them."""
        stem = name.removesuffix(self._suffix) if name.endswith(self._suffix) else name.rpartition(".")[0]
        return stem in self._shared_names

    @cached_property
    def _shared_names(self) -> set[str]:
        counts = Counter(name.rpartition("/")[2].removesuffix(self._suffix) for name in self._names)
        return {name for name, count in counts.items() if count > 1}

    def _key(self, item_id: ItemId) -> str:
        """The sample's key: the annotation file's path without its suffix."""
        return str(item_id).removesuffix(self._suffix)
