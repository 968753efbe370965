"""Where a dataset's files lie inside the folder that the user names."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pics_cli.core.datasets.scene import Item
from pics_cli.core.recipes.dataset import FileSource, SynthSource, VistasSource
from pics_cli.errors import BadSample, PicsError, reason_of


class Place(NamedTuple):
    """Where one split was found.

    Attributes:
        base: the folder that holds the dataset.
        path: its annotation file, or folder of annotation files.
        split, version: what {split} and {version} stand for; "" where the pattern that fitted names no version.
        patterns: the split's picture patterns.
    """

    base: Path
    path: Path
    split: str
    version: str
    patterns: tuple[str, ...]


class ImagePaths:
    """Expands a recipe's picture patterns; a pattern that needs a field the record lacks is left out."""

    def __init__(self, place: Place) -> None:
        self.base, self.patterns = place.base, place.patterns
        self._fixed = {"split": place.split, "version": place.version}

    def files(self, file_name: str, url: str = "", suffix: str = "") -> tuple[Path, ...]:
        """Where a picture may lie, in the order to try; never outside the base folder.

        Args:
            file_name: as the annotation gives it, with `/` between folders.
            url: the picture's address where the annotation has one, such as COCO's `coco_url`.
            suffix: what follows the stem in `file_name`; else its extension does.
        """
        folders, _, name = file_name.rpartition("/")
        url_folders, _, url_name = url.rpartition("/")
        parents = folders.split("/")
        stem = name.removesuffix(suffix) if suffix else name.rpartition(".")[0] or name
        known = {
            **self._fixed, "file_name": file_name, "name": name, "stem": stem,
            "parent": parents[-1], "parent2": parents[-2] if len(parents) > 1 else "",
            "url_name": url_name, "url_parent": url_folders.rpartition("/")[2],
        }  # fmt: skip
        fields = {key: value for key, value in known.items() if value}
        found = []
        for pattern in self.patterns:
            try:
                path = pattern.format_map(fields)
            except KeyError:
                continue
            if not path.startswith("/") and "\0" not in path and ".." not in path.split("/"):
                found.append(self.base / path)
        return tuple(found)


def known_split(source: FileSource | SynthSource, split: str, dataset: str) -> None:
    """Refuse a split that the recipe does not know."""
    if split not in source.splits:
        raise PicsError(f"{dataset} has no split {split!r}", f"its recipe knows: {', '.join(source.splits)}")


def find_place(source: FileSource, split: str, raw: Path, dataset: str) -> Place:
    """Where a split's annotations lie; `raw` may be the dataset's own folder or the one around it.

    Raises:
        PicsError: unknown split, no such folder, or nothing of this dataset in it.
    """
    known_split(source, split, dataset)
    if not raw.is_dir():
        what = "is a file" if raw.exists() else "does not exist"
        raise PicsError(f"raw folder {raw} {what}", "name the dataset's folder with --raw DIR")
    wanted = source.splits[split]
    versions = source.versions if isinstance(source, VistasSource) else ()
    looked: list[str] = []
    for base in (raw, *(raw / name for name in source.folder)):
        for patterns, is_folder in ((wanted.labels, True), (wanted.annotations, source.folders)):
            for pattern in patterns:
                for version in versions if "{version}" in pattern else ("",):
                    name = pattern.format(split=split, version=version)
                    path = base / name
                    looked.append(name + "/" * is_folder)
                    if path.exists() and path.is_dir() != is_folder:
                        kinds = ("a folder", "a file") if is_folder else ("a file", "a folder")
                        raise PicsError(
                            f"{path} is {kinds[1]}, expected {kinds[0]} of annotations",
                            f"name another with --set source.splits.{split}.annotations=[…]",
                        )
                    if path.exists():
                        return Place(base, path, split, version, wanted.images)
    within = f" (also inside {', '.join(source.folder)})" if source.folder else ""
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in raw.iterdir())
    found = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    raise PicsError(
        f"raw folder {raw} holds no {dataset} {split} annotations: looked for {', '.join(dict.fromkeys(looked))}"
        f"{within}; found {found or 'nothing'}",
        "name the dataset's folder with --raw DIR, or its files with --set "
        f"source.splits.{split}.annotations=[{'FOLDER' if source.folders else 'FILE.json'}]",
    )


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
            raise PicsError(f"{error.filename}: cannot list: {reason_of(error)}") from None
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
            raise BadSample("bad_annotation_file", f"{path}: {reason_of(error)}") from None

    def _files(self, item: Item) -> tuple[Path, ...]:
        """Where the picture of an annotation file may lie."""
        return self._paths.files(str(item), suffix=self._suffix)

    def _key(self, item: Item, files: Sequence[Path]) -> str:
        """The sample's key: the annotation file's place and name without its suffix, or in compat the picture's."""
        if self._compat and files:
            return files[0].stem
        return str(item).removesuffix(self._suffix)
