"""Folders of one annotation file a picture: listed once, in the order of the files' names."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pics_cli.core.data.readers.paths import ImagePaths, Place
from pics_cli.core.data.scene import Item
from pics_cli.errors import BadSample, PicsError


class FolderReader:
    """What readers of such folders share; see `Reader` for the attributes.

    Args:
        place: where the folder and its pictures lie.
        suffix: how the names of annotation files end.
        compat: name samples as the research code does, by the picture's file name alone.
        hint: what to do where the folder holds no such file.
    """

    format = ""
    categories: Sequence[str] = ()

    def __init__(self, place: Place, suffix: str, compat: bool, hint: str) -> None:
        self.place = place.path
        self.bad: dict[str, Any] = {"counts": {}, "lines": []}
        self._paths, self._suffix, self._compat, self._hint = ImagePaths(place), suffix, compat, hint

    @cached_property
    def _names(self) -> list[str]:
        """Annotation files relative to the folder, sorted; listed once, and by workers never."""
        try:
            names = sorted(self._walk(self.place, "", ()))
        except OSError as error:
            raise PicsError(f"{error.filename}: cannot list: {(error.strerror or str(error)).lower()}") from None
        if not names:
            raise PicsError(f"{self.place}: no annotation files (*{self._suffix}) in it", self._hint)
        if self._compat:
            stem, count = Counter(name.rpartition("/")[2] for name in names).most_common(1)[0]
            if count > 1:
                raise PicsError(
                    f"{self.place}: {count} files are called {stem}, and the research code names samples by that alone",
                    "build without --compat, which keeps the folder in the name",
                )
        return names

    def _walk(self, folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
        state = folder.stat()
        here = (state.st_dev, state.st_ino)
        if here in above:  # a link to a folder around it
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):  # left by editors and file managers
                    continue
                if entry.is_dir():
                    yield from self._walk(Path(entry.path), f"{prefix}{entry.name}/", (*above, here))
                elif entry.name.endswith(self._suffix):
                    yield prefix + entry.name

    @property
    def source(self) -> dict[str, Any]:
        """What tells this input from another: how many files, and a hash of their names."""
        listing = hashlib.sha256("\n".join(self._names).encode("utf-8", "surrogateescape")).hexdigest()
        return {"format": self.format, "files": len(self._names), "listing": listing}

    def __len__(self) -> int:
        return len(self._names)

    def items(self, start: int, stop: int) -> Sequence[Item]:
        """Names of the files start to stop."""
        return self._names[start:stop]

    def _read(self, item: Item) -> bytes:
        path = self.place / str(item)
        try:
            return path.read_bytes()
        except OSError as error:
            raise BadSample("bad_annotation_file", f"{path}: {(error.strerror or str(error)).lower()}") from None

    def _files(self, item: Item) -> tuple[Path, ...]:
        """Where the picture of an annotation file may lie."""
        return self._paths.files(str(item), suffix=self._suffix)

    def _key(self, item: Item, files: Sequence[Path]) -> str:
        """The sample's key: the annotation file's place and name without its suffix, or in compat the picture's."""
        if self._compat and files:
            return files[0].stem
        return str(item).removesuffix(self._suffix)
