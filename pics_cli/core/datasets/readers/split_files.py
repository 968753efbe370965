"""Where a split's annotations and images lie inside the folder that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pics_cli.core.recipes.dataset import FileSource, Source, VistasSource
from pics_cli.errors import PicsError, abbreviate

_ANY_ENDING = ".*"
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".JPG", ".JPEG", ".PNG", ".bmp", ".tif", ".tiff", ".avif")


class SplitFiles(NamedTuple):
    """The files of one split.

    Attributes:
        root: the folder that holds the dataset.
        annotations: its annotation file, or folder of annotation files.
        split, version: what {split} and {version} stand for; "" where the pattern that fitted names no version.
        image_patterns: of the recipe, relative to the root.
    """

    root: Path
    annotations: Path
    split: str
    version: str
    image_patterns: tuple[str, ...]

    def image_paths(self, file_name: str, url: str = "", suffix: str = "") -> tuple[Path, ...]:
        """Where an image may lie, in the order to try; never outside the root folder.

        A pattern with a field that the annotation does not give is left out.

        Args:
            file_name: as the annotation gives it, with `/` between folders.
            url: the image's address where the annotation has one, such as COCO's `coco_url`.
            suffix: what follows the stem in `file_name`; else its extension does.
        """
        folders, _, name = file_name.rpartition("/")
        url_folders, _, url_name = url.rpartition("/")
        parents = folders.split("/")
        stem = name.removesuffix(suffix) if suffix else name.rpartition(".")[0] or name
        known = {
            "split": self.split, "version": self.version, "file_name": file_name, "name": name, "stem": stem,
            "parent": parents[-1], "parent2": parents[-2] if len(parents) > 1 else "",
            "url_name": url_name, "url_parent": url_folders.rpartition("/")[2],
        }  # fmt: skip
        fields = {key: value for key, value in known.items() if value}
        paths = []
        for pattern in self.image_patterns:
            try:
                path = pattern.format_map(fields)
            except KeyError:
                continue
            if not path.startswith("/") and "\0" not in path and ".." not in path.split("/"):
                endings = _ENDINGS if path.endswith(_ANY_ENDING) else ("",)
                paths += [self.root / (path.removesuffix(_ANY_ENDING) + ending) for ending in endings]
        return tuple(paths)


def check_split(source: Source, split: str, dataset: str) -> None:
    """Refuse a split that the recipe does not know."""
    if split not in source.splits:
        raise PicsError(f"{dataset} has no split {split!r}", f"its recipe knows: {', '.join(source.splits)}")


def find_split_files(source: FileSource, split: str, raw: Path | None, dataset: str) -> SplitFiles:
    """Where a split's annotations lie; `raw` may be the dataset's own folder or the one around it.

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
    tried: list[str] = []
    for root in (raw, *(raw / name for name in source.folder)):
        for names, is_folder in ((patterns.labels, True), (patterns.annotations, source.folders)):
            for pattern in names:
                for version in versions if "{version}" in pattern else ("",):
                    name = pattern.format(split=split, version=version)
                    path = root / name
                    tried.append(name + "/" * is_folder)
                    if path.exists() and path.is_dir() != is_folder:
                        kinds = ("a folder", "a file") if is_folder else ("a file", "a folder")
                        raise PicsError(
                            f"{path} is {kinds[1]}, expected {kinds[0]} of annotations",
                            f"name another with --set source.splits.{split}.annotations=[…]",
                        )
                    if path.exists():
                        return SplitFiles(root, path, split, version, patterns.images)
    within = f" (also inside {', '.join(source.folder)})" if source.folder else ""
    names_in_raw = sorted(path.name + ("/" if path.is_dir() else "") for path in raw.iterdir())
    raise PicsError(
        f"raw folder {raw} holds no {dataset} {split} annotations: looked for {', '.join(dict.fromkeys(tried))}"
        f"{within}; found {abbreviate(names_in_raw) or 'nothing'}",
        "name the dataset's folder with --raw DIR, or its files with --set "
        f"source.splits.{split}.annotations=[{'FOLDER' if source.folders else 'FILE.json'}]",
    )
