"""Indexes of large annotation files in the user's cache folder: built once, reopened while the file is the same."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pics_cli.core.runtime.files import INDEX_CACHE_HINT, cache_folder, fingerprint, locked, make_folder
from pics_cli.errors import read_error, write_error

logger = logging.getLogger(__name__)
T = TypeVar("T")

INDEX_METADATA = "meta.json"


def open_cached_index(
    path: Path, version: str, build: Callable[[Path, dict[str, Any]], None], load: Callable[[Path], T]
) -> T:
    """Open the index of an annotation file, building it first where the cache has none for this very file.

    Building takes a second for every 60 MB or so, and is logged.

    Args:
        path: the annotation file.
        version: of the index's format.
        build: writes the index, `INDEX_METADATA` among it, into an empty folder; the second argument is the
            fingerprint of the annotation file.
        load: opens such a folder.

    Raises:
        PicsError: the file cannot be read, or the cache folder not written.
    """
    try:
        state, source = path.stat(), fingerprint(path)
    except OSError as error:
        raise read_error(path, error) from None
    key = json.dumps([version, str(path.resolve()), state.st_mtime_ns, source])
    folder = cache_folder() / "index" / hashlib.sha256(key.encode()).hexdigest()[:32]
    if not (folder / INDEX_METADATA).exists():
        make_folder(folder.parent, INDEX_CACHE_HINT)
        with locked(folder.parent / f"{folder.name}.lock", INDEX_CACHE_HINT):  # one of several processes scans the file
            if not (folder / INDEX_METADATA).exists():
                logger.info("indexing %s (once)", path)
                _build_atomically(folder, lambda work: build(work, source))
    try:
        return load(folder)
    except (OSError, EOFError, ValueError, KeyError):  # damaged: it can be built again
        shutil.rmtree(folder)
        _build_atomically(folder, lambda work: build(work, source))
        return load(folder)


def _build_atomically(folder: Path, build: Callable[[Path], None]) -> None:
    """Build in a temporary folder that gets its name when it is complete."""
    make_folder(folder.parent, INDEX_CACHE_HINT)
    _remove_abandoned(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=f".building-{socket.gethostname()}-{os.getpid()}-", dir=folder.parent))
    collecting = gc.isenabled()
    gc.disable()  # millions of short-lived records: the collector would cost more than the decoding
    try:
        build(work)
        for part in work.iterdir():
            with part.open("rb") as file:
                os.fsync(file.fileno())
        work.rename(folder)
    except OSError as error:
        if not (folder / INDEX_METADATA).exists():  # else another process was faster with the same result
            raise write_error(folder, error, INDEX_CACHE_HINT) from None
    finally:
        if collecting:
            gc.enable()
        shutil.rmtree(work, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Delete what killed builders of this host left behind: gigabytes, for a large dataset."""
    work_name = re.compile(rf"\.building-{re.escape(socket.gethostname())}-(\d+)-[^-]*")
    for path in parent.iterdir():
        if match := work_name.fullmatch(path.name):
            try:
                os.kill(int(match.group(1)), 0)
            except ProcessLookupError:
                shutil.rmtree(path, ignore_errors=True)
            except PermissionError:
                continue  # alive, of another user
