"""Where a split's annotations and images lie inside the folder that the user names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pics_cli.core.recipes.sources import CocoSource, FileSource, ScalabelSource, Source, VistasSource
from pics_cli.core.runtime.files import as_remote
from pics_cli.core.runtime.storage import list_folder, location
from pics_cli.errors import BadSample, PicsError, abbreviate, read_error

# Where `pics annotate` writes a split's labels, and build-shards looks for them, when the recipe names no folder.
DEFAULT_LABELS = "pics_labels/{split}"
_DRIVE = re.compile(r"[A-Za-z]:/+")
_FOLDERS_OF_IMAGES = re.compile(r"\{(file_name|path|parent2?|url_name|url_parent)\}")

_ANY_ENDING = ".*"
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".JPG", ".JPEG", ".PNG", ".bmp", ".tif", ".tiff", ".avif")


class SplitFiles(NamedTuple):
    """The files of one split.

    Attributes:
        root: the folder that holds the dataset.
        annotations: its annotation file, or folder of annotation files.
        split, version: what {split} and {version} stand for; "" where the pattern that fitted names no version.
        image_patterns: of the recipe, relative to the root.
        more: further annotation files, where a pattern with * fits several.
        unread: other annotation files that the recipe names and that are there.
    """

    root: Path
    annotations: Path
    split: str
    version: str
    image_patterns: tuple[str, ...]
    more: tuple[Path, ...] = ()
    unread: tuple[Path, ...] = ()

    def image_paths(
        self, file_name: str, url: str = "", suffix: str = "", is_shared: Callable[[str], bool] | None = None
    ) -> tuple[Path, ...]:
        """Where an image may lie, in the order to try; never outside the root folder.

        A pattern with a field that the annotation does not give is left out. Folders `*` and `**` of a pattern are
        looked up in a list of the files that is made once.

        Args:
            file_name: as the annotation gives it, with `/` between folders, or `\\` as Windows writes it.
            url: the image's address where the annotation has one, such as COCO's `coco_url`.
            suffix: what follows the stem in `file_name`; else its extension does.
            is_shared: whether images of several folders have a name; asked for only where one lies at a pattern without
                its folders, and at no earlier one.

        Raises:
            BadSample: `ambiguous_image`: several files fit a pattern with `*`, or one could be of several images.
        """
        paths = self._image_paths(file_name, url, suffix, is_shared)
        if "\\" in file_name:
            plain = _DRIVE.sub("", file_name.replace("\\", "/"), count=1)
            paths += self._image_paths(plain, url, suffix, is_shared)
        return tuple(paths)

    def find_names(self, patterns: Sequence[str], key: str, what: str) -> Path:
        """The first file that there is of those which may name the labels or classes.

        Args:
            patterns: relative to the root, with {split} and {version}.
            key: of the recipe that has them, for the message.
            what: they name.

        Raises:
            PicsError: there is none.
        """
        fields = {"split": self.split, "version": self.version}
        names = [pattern.format_map(fields) for pattern in patterns if self.version or "{version}" not in pattern]
        for name in names:
            if (self.root / name).is_file():
                return self.root / name
        raise PicsError(
            f"{self.root}: no {' or '.join(names or patterns)}, which names the {what} of {self.annotations}",
            f"it comes with the dataset; its place can be given with --set source.{key}=[FILE]",
        )

    def _image_paths(
        self, file_name: str, url: str, suffix: str, is_shared: Callable[[str], bool] | None
    ) -> list[Path]:
        folders, _, name = file_name.rpartition("/")
        url_folders, _, url_name = url.rpartition("/")
        parents = folders.split("/")
        stem = name.removesuffix(suffix) if suffix else name.rpartition(".")[0] or name
        known = {
            "split": self.split, "version": self.version, "file_name": file_name, "name": name, "stem": stem,
            "path": f"{folders}/{stem}" if folders else stem,
            "parent": parents[-1], "parent2": parents[-2] if len(parents) > 1 else "",
            "url_name": url_name, "url_parent": url_folders.rpartition("/")[2],
        }  # fmt: skip
        fields = {key: value for key, value in known.items() if value}
        paths: list[Path] = []
        for pattern in self.image_patterns:
            try:
                path = pattern.format_map(fields)
            except KeyError:
                continue
            if path.startswith("/") or "\0" in path or ".." in path.split("/"):
                continue
            endings = _ENDINGS if path.endswith(_ANY_ENDING) else ("",)
            candidates = [path.removesuffix(_ANY_ENDING) + ending for ending in endings]
            if "*" not in pattern.removesuffix(_ANY_ENDING):
                there = [self.root / candidate for candidate in candidates]
                by_name = folders and is_shared is not None and not _FOLDERS_OF_IMAGES.search(pattern)
                if by_name and not f"/{path}".endswith(f"/{file_name}") and not any(each.exists() for each in paths):
                    taken = next((each for each in there if each.exists()), None)
                    if taken is not None and is_shared is not None and is_shared(name):
                        text = f"{file_name} is not there, and {taken} may be of another folder's picture of that name"
                        raise BadSample("ambiguous_image", text)
                paths += there
                continue
            found = [file for candidate in candidates for file in _find_files(self.root, candidate)]
            if len(found) > 1 and not any(earlier.exists() for earlier in paths):
                raise BadSample("ambiguous_image", f"{len(found)} files fit {path}: {found[0]}, {found[1]}, …")
            paths += found
        return paths


def _find_files(root: Path, pattern: str) -> list[Path]:
    """Files that fit a pattern whose folders may be `*` (one folder) or `**` (any number of them)."""
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if "*" in part) if "*" in pattern else len(parts) - 1
    folder = root.joinpath(*parts[:fixed])
    regex = "".join(
        "(?:.*/)?" if part == "**" else re.escape(part).replace(r"\*", "[^/]*") + "/" for part in parts[fixed:-1]
    )
    name = parts[-1]
    candidates = _files_by_name(folder).get(name, ())
    return [folder / path for path in candidates if re.fullmatch(regex + re.escape(name), path)]


@lru_cache(maxsize=4)
def _files_by_name(folder: Path) -> dict[str, list[str]]:
    """Files below a folder, relative to it and sorted, by their names."""
    files: dict[str, list[str]] = {}
    if remote := as_remote(folder):
        for path in remote.files_below():
            files.setdefault(path.rpartition("/")[2], []).append(path)
        return files
    visited = set()
    for path, folders, names in os.walk(folder, followlinks=True):
        state = Path(path).stat()
        if (state.st_dev, state.st_ino) in visited:  # by a link
            folders.clear()
            continue
        visited.add((state.st_dev, state.st_ino))
        folders.sort()
        below = os.path.relpath(path, folder)
        for name in sorted(names):
            files.setdefault(name, []).append(name if below == "." else f"{below}/{name}")
    return files


def check_split(source: Source, split: str, dataset: str) -> None:
    """Refuse a split that the recipe does not know."""
    if split not in source.splits:
        raise PicsError(f"{dataset} has no split {split!r}", f"its recipe knows: {', '.join(source.splits)}")


def find_split_files(source: FileSource, split: str, raw: Path | None, dataset: str, labels: bool = True) -> SplitFiles:
    """Where a split's annotations lie; `raw` may be the dataset's own folder or the one around it.

    Args:
        source, split: of the recipe.
        raw: the folder.
        dataset: its name, for messages.
        labels: whether labels that `pics annotate` made are looked for, and first.

    Raises:
        PicsError: unknown split, no such folder, or nothing of this dataset in it.
    """
    if raw is None:
        raise PicsError(f"{dataset}: no raw folder named", "name the dataset's folder with --raw DIR")
    check_split(source, split, dataset)
    if not raw.is_dir():
        what = "is a file" if raw.exists() else "does not exist"
        raise PicsError(f"raw folder {raw} {what}", "name the dataset's folder with --raw DIR")
    patterns = source.splits[split]
    versions = source.versions if isinstance(source, VistasSource) else ()
    takes_labels = isinstance(source, CocoSource | ScalabelSource)
    if patterns.labels and not takes_labels:
        raise PicsError(
            f"{dataset} {split}: labels of `pics annotate` go with the formats coco and scalabel, its format is "
            f"{source.format}",
            "leave them out",
        )
    label_patterns = (patterns.labels or (DEFAULT_LABELS,)) if labels and takes_labels else ()
    roots = (raw, *(raw / name for name in source.folder))
    tried: list[str] = []
    for root in roots:
        for names, is_folder in ((label_patterns, True), (patterns.annotations, source.folders)):
            for pattern in names:
                for version in versions if "{version}" in pattern else ("",):
                    name = pattern.format(split=split, version=version)
                    is_asked_for = _is_whole(name)  # as only labels may be: nothing else is taken for them
                    if names is not label_patterns or patterns.labels:
                        tried.append(name + "/" * is_folder)
                    if paths := _existing(root, name, is_folder, split):
                        home = _root_of(patterns.annotations, roots, split) if is_asked_for else root
                        others = [] if is_folder else [root / other.format(split=split, version="") for other in names]
                        unread = tuple(path for path in others if path.is_file() and path not in paths)
                        return SplitFiles(home, paths[0], split, version, patterns.images, tuple(paths[1:]), unread)
                    if is_asked_for:
                        raise PicsError(f"labels folder {name}: no such folder", "`pics annotate --out DIR` makes one")
    within = f" (also inside {', '.join(source.folder)})" if source.folder else ""
    names_in_raw = sorted(name + "/" * entry.is_dir for name, entry in list_folder(raw).items())
    raise PicsError(
        f"raw folder {raw} holds no {dataset} {split} annotations: looked for {', '.join(dict.fromkeys(tried))}"
        f"{within}; found {abbreviate(names_in_raw) or 'nothing'}",
        "name the dataset's folder with --raw DIR, or its files with --set "
        f"source.splits.{split}.annotations=[{'FOLDER' if source.folders else 'FILE.json'}]",
    )


def _root_of(patterns: Sequence[str], roots: Sequence[Path], split: str) -> Path:
    """The first folder in which an annotation file lies, and so the pictures; where none does, the first."""
    names = [pattern.format(split=split, version="") for pattern in patterns]
    return next((root for root in roots for name in names if _existing(root, name, False, split)), roots[0])


def _is_whole(name: str) -> bool:
    """Whether a name is an absolute path or an address, and not one below the raw folder."""
    return "://" in name or Path(name).is_absolute()


def _existing(root: Path, name: str, is_folder: bool, split: str) -> list[Path]:
    """The annotations of this name, or all that fit it where it has a * and is no name itself.

    Raises:
        PicsError: a file instead of a folder, a folder instead of a file, several folders, or a * that cannot be.
    """
    path = location(name) if _is_whole(name) else root / name
    try:
        exists = path.exists()
    except OSError as error:  # of a name too long, say
        raise read_error(path, error) from None
    if "*" in name and not exists and not _is_whole(name):
        if any("**" in part and part != "**" for part in Path(name).parts):  # which Python takes from 3.13 on
            raise PicsError(
                f"source.splits.{split}: {name!r}: ** can only be an entire path component",
                "* stands for a part of one name, ** alone between two / for any folders",
            )
        paths = sorted(path for path in root.glob(name) if path.is_dir() == is_folder)
        if is_folder and len(paths) > 1:
            raise PicsError(f"{root / name}: {len(paths)} folders fit, expected one", "name it without *")
        return paths
    if exists and path.is_dir() != is_folder:
        kinds = ("a folder", "a file") if is_folder else ("a file", "a folder")
        raise PicsError(
            f"{path} is {kinds[1]}, expected {kinds[0]} of annotations",
            f"name another with --set source.splits.{split}.annotations=[…]",
        )
    return [path] if exists else []
