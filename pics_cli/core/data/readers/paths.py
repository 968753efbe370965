"""Where a dataset's files lie inside the folder that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pics_cli.core.recipe import CocoSource
from pics_cli.errors import PicsError


class ImagePaths:
    """Expands a recipe's picture patterns; a pattern that needs a field the record lacks is left out."""

    def __init__(self, base: Path, patterns: Sequence[str], split: str) -> None:
        self.base, self.patterns, self.split = base, patterns, split

    def files(self, file_name: str, url: str = "") -> tuple[Path, ...]:
        """Where a picture may lie, in the order to try; never outside the base folder.

        Args:
            file_name: as the annotation gives it, with `/` between folders.
            url: the picture's address where the annotation has one, such as COCO's `coco_url`.
        """
        folders, _, name = file_name.rpartition("/")
        url_folders, _, url_name = url.rpartition("/")
        parents = folders.split("/")
        known = {
            "split": self.split, "file_name": file_name, "name": name, "stem": name.rpartition(".")[0] or name,
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


def find_base(source: CocoSource, split: str, raw: Path, dataset: str) -> tuple[Path, Path]:
    """The folder that holds the dataset and the annotation file (or folder of label files) to read.

    `raw` may be the dataset's own folder or the one around it.

    Raises:
        PicsError: unknown split, no such folder, or nothing of this dataset in it.
    """
    if split not in source.splits:
        raise PicsError(f"{dataset} has no split {split!r}", f"its recipe knows: {', '.join(source.splits)}")
    if not raw.is_dir():
        what = "is a file" if raw.exists() else "does not exist"
        raise PicsError(f"raw folder {raw} {what}", "name the dataset's folder with --raw DIR")
    wanted = source.splits[split]
    bases = [raw, *(raw / name for name in source.folder)]
    for base in bases:
        for pattern in wanted.labels:
            if (base / pattern.format(split=split)).is_dir():
                return base, base / pattern.format(split=split)
        for pattern in wanted.annotations:
            if (base / pattern.format(split=split)).is_file():
                return base, base / pattern.format(split=split)
    looked = ", ".join((*(f"{name}/" for name in wanted.labels), *wanted.annotations))
    within = f" (also inside {', '.join(source.folder)})" if source.folder else ""
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in raw.iterdir())
    found = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    raise PicsError(
        f"raw folder {raw} holds no {dataset} {split} annotations: looked for {looked}{within}; "
        f"found {found or 'nothing'}",
        "name the dataset's folder with --raw DIR, or its files with --set "
        f"source.splits.{split}.annotations=[FILE.json]",
    )
