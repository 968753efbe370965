"""Indexes of large annotation files in the user's cache folder: built once, found again while the file is the same."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pics_cli.core.runtime.files import cache_folder, fingerprint, locked, make_folder
from pics_cli.errors import read_error, write_error

T = TypeVar("T")

META = "meta.json"
BAD_LISTED = 1000
_HINT = "indexes live there: name another folder with PICS_CACHE=DIR"


class Faults:
    """Records left out while indexing: `counts` by reason, and `lines` on the first of them."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.lines: list[str] = []

    def note(self, reason: str, line: str) -> None:
        """Count a record."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if len(self.lines) < BAD_LISTED:
            self.lines.append(f"{reason}: {line}")

    def plain(self) -> dict[str, Any]:
        """As data for the index."""
        return {"counts": dict(sorted(self.counts.items())), "lines": self.lines}


def open_cached(
    path: Path,
    version: str,
    build: Callable[[Path, dict[str, Any]], None],
    load: Callable[[Path], T],
    on_build: Callable[[Path], None] | None,
) -> T:
    """Open the index of an annotation file, building it first where the cache has none for this very file.

    Args:
        path: the annotation file.
        version: of the index's format.
        build: writes the index, `META` among it, into an empty folder; told what tells this file from others.
        load: opens such a folder.
        on_build: called before an index is built, which takes a second for every 60 MB or so.

    Raises:
        PicsError: the file cannot be read, or the cache folder not written.
    """
    try:
        state, source = path.stat(), fingerprint(path)
    except OSError as error:
        raise read_error(path, error) from None
    key = json.dumps([version, str(path.resolve()), state.st_mtime_ns, source])
    folder = cache_folder() / "index" / hashlib.sha256(key.encode()).hexdigest()[:32]
    if not (folder / META).exists():
        make_folder(folder.parent, _HINT)
        with locked(folder.parent / f"{folder.name}.lock", _HINT):  # one of several processes scans the file
            if not (folder / META).exists():
                if on_build:
                    on_build(path)
                _build(folder, lambda work: build(work, source))
    try:
        return load(folder)
    except (OSError, EOFError, ValueError, KeyError):  # damaged: it can be made again
        shutil.rmtree(folder)
        _build(folder, lambda work: build(work, source))
        return load(folder)


def _build(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder that appears when it is complete."""
    make_folder(folder.parent, _HINT)
    _remove_abandoned(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=f".building-{socket.gethostname()}-{os.getpid()}-", dir=folder.parent))
    collecting = gc.isenabled()
    gc.disable()  # millions of short-lived records: the collector would cost more than the decoding
    try:
        fill(work)
        for part in work.iterdir():
            with part.open("rb") as file:
                os.fsync(file.fileno())
        work.rename(folder)
    except OSError as error:
        if not (folder / META).exists():  # else somebody was faster with the same result
            raise write_error(folder, error, _HINT) from None
    finally:
        if collecting:
            gc.enable()
        shutil.rmtree(work, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Delete what builders of this host left behind that were killed: gigabytes, for a large dataset."""
    ours = re.compile(rf"\.building-{re.escape(socket.gethostname())}-(\d+)-[^-]*")
    for path in parent.iterdir():
        match = ours.fullmatch(path.name)
        if match is None:
            continue
        try:
            os.kill(int(match.group(1)), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except PermissionError:
            continue  # alive, of another user
