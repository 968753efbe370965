"""Pictures in a folder, called after their samples."""

from __future__ import annotations

from pathlib import Path

from pics_cli.errors import PicsError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_PREFIX = "composed_"


def pictures(folder: Path, flag: str) -> dict[str, Path]:
    """Picture files of a folder (or of `composed/` in it) by id, in order: their names, without `composed_`.

    Raises:
        PicsError: no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise PicsError(f"{flag} {folder}: no such folder", "name a folder of pictures called after their samples")
    place = folder / "composed" if (folder / "composed").is_dir() else folder
    files = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise PicsError(f"{flag} {folder}: no picture in it", f"expected files such as ID{SUFFIXES[0]}")
    return {path.stem.removeprefix(_PREFIX): path for path in files}
