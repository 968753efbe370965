"""What a run is going to write, held against what it reads: nothing of the user's is overwritten."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from pics_cli.core.runtime.files import open_file
from pics_cli.core.runtime.manifest import MANIFEST
from pics_cli.core.runtime.storage import is_remote
from pics_cli.errors import PicsError, read_error

NamedPath = tuple[str, Path]
"""What the user calls a path, such as the option that names it, and the path."""

# Signature and header of a PNG file are so many bytes; the chunk after them says that it is a sheet.
PNG_HEAD = 8 + 25
_TEXT = b"tEXtSoftware\0pics sheet"
SHEET_MARK = struct.pack(">I", len(_TEXT) - 4) + _TEXT + struct.pack(">I", zlib.crc32(_TEXT))


def refuse_overwriting(
    outputs: Iterable[NamedPath], inputs: Iterable[NamedPath], untouched: Iterable[NamedPath] = ()
) -> None:
    """Refuse outputs that are inputs, whatever links or spellings lead to them; called before any work.

    Args:
        outputs: files and folders that the run would write.
        inputs: files and folders that it reads.
        untouched: folders that nothing is written to, at any depth, such as a raw dataset.

    Raises:
        PicsError: an output is an input, or lies in a folder that stays untouched.
    """
    read = {_identity(path): (name, path) for name, path in inputs}
    kept = {_identity(path): (name, path) for name, path in untouched}
    for flag, path in outputs:
        if found := read.get(_identity(path)):
            raise PicsError(
                f"{flag} {path}: is {found[0]} {found[1]}, which this run reads: it would be overwritten",
                f"choose another {flag}",
            )
        real = path if is_remote(path) else Path(os.path.realpath(path))
        for folder in (path, *real.parents) if kept else ():
            if found := kept.get(_identity(folder)):
                raise PicsError(
                    f"{flag} {path}: lies in {found[0]} {found[1]}, where nothing is written", f"choose another {flag}"
                )


def refuse_result_folder(folder: Path, state: Path, raw: Path | None, inputs: Iterable[NamedPath] = ()) -> None:
    """Refuse a folder for what is made of a raw dataset that is the dataset, an input, or has files of the dataset.

    Many keep recipe, pictures and results in one place: a folder of its own inside the raw one is nobody's loss.

    Args:
        folder: of option --out.
        state: where its manifest is.
        raw: the dataset's folder, if there is one.
        inputs: what else is read.

    Raises:
        PicsError: it is one of these.
    """
    raw_folder = [] if raw is None else [("the raw folder", raw)]
    own = not folder.is_dir() or (state / MANIFEST).is_file()
    own = own or all(path.name.startswith(".") for path in folder.iterdir())  # locks, say
    refuse_overwriting([("--out", folder)], [*raw_folder, *inputs], [] if own else raw_folder)


def refuse_other_picture(flag: str, path: Path) -> None:
    """Refuse a file to draw a sheet into that is there and is none, before any work; a sheet is drawn anew.

    Raises:
        PicsError: it is another picture, or cannot be read.
    """
    try:
        with open_file(path) as file:
            head = file.read(PNG_HEAD + len(SHEET_MARK))
    except FileNotFoundError:
        return
    except OSError as error:
        raise read_error(path, error, f"choose another {flag}") from None
    if head[PNG_HEAD:] != SHEET_MARK:
        raise PicsError(
            f"{flag} {path}: is there already, and is no sheet that pics drew",
            f"choose another {flag}, or remove that file first",
        )


def _identity(path: Path) -> tuple[int, int] | str:
    """What tells a file from another by all of its names: device and inode; its resolved path where it is not there;
    its address in a store."""
    if is_remote(path):
        return str(path).rstrip("/")
    try:
        state = path.stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    return state.st_dev, state.st_ino
