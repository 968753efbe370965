"""What the cache folder holds, for `pics cache`: entries by kind, and their removal while no command uses them.

Nothing else that lies there is touched: not what is no entry by its name, nor the record of hashes, which says what the
files of a first use were.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pics_cli.core.runtime.files import INDEX_CACHE_HINT, cache_folder, make_folder
from pics_cli.core.runtime.locks import lock_holder, locked, single_writer
from pics_cli.errors import PicsError, write_error

_HASH = "[0-9a-f]{32}"
# Folders of the cache, what the entries in them are called, and what they are.
KINDS = {
    "index": (_HASH, "indexes of annotation files"),
    "offsets": (rf"{_HASH}\.offsets", "where samples begin in shards"),
    "shards": (rf"{_HASH}\.(?:tar|samples)", "shards fetched from servers and stores"),
    "fetched": (_HASH, "files fetched from stores"),
    "models": (rf".+-[0-9a-f]{{12}}|{_HASH}\.(?:json|npy)", "converted checkpoints, facts of 3D models"),
}
_USERS = "in_use"


class CacheEntry(NamedTuple):
    """A file or folder of the cache.

    Attributes:
        kind: a key of `KINDS`.
        path: of it.
        size: bytes.
        modified: when it was made, of what was fetched when it was used last; seconds since 1970.
    """

    kind: str
    path: Path
    size: int
    modified: float


def list_cache() -> list[CacheEntry]:
    """The entries of the cache, by kind.

    Raises:
        PicsError: there is no cache folder, for nobody says where; see `cache_folder`.
    """
    entries = []
    for kind, (pattern, _) in KINDS.items():
        folder = cache_folder() / kind
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if re.fullmatch(pattern, path.name) and not path.is_symlink():
                with contextlib.suppress(FileNotFoundError):  # another process has just removed it
                    entries.append(CacheEntry(kind, path, folder_size(path), path.stat().st_mtime))
    return entries


def hub_cache() -> Path | None:
    """The cache of the Hugging Face hub's client, which pics shares with other programs; None: it is not installed."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return None
    return Path(HF_HUB_CACHE)


def folder_size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links are not followed, and nothing there is 0 bytes."""
    if not path.is_dir():
        return path.lstat().st_size if path.exists() else 0
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118  (a Path each takes twice as long)
    return total


@contextlib.contextmanager
def using_cache() -> Iterator[None]:
    """Keep `clean_cache` from removing anything while the block runs.

    A cache that is read-only needs no keeping, nor does one that does not exist: a command that needs none makes none.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(PicsError):
            if cache_folder().is_dir():
                folder = cache_folder() / _USERS
                make_folder(folder, INDEX_CACHE_HINT)
                with locked(folder / ".lock", INDEX_CACHE_HINT):
                    stack.enter_context(single_writer(folder, f"{socket.gethostname()}-{os.getpid()}"))
        yield


def clean_cache(entries: Sequence[CacheEntry]) -> None:
    """Remove entries.

    Raises:
        PicsError: a command uses the cache, here or on another machine that sees it; or it cannot be written to.
    """
    folder = cache_folder() / _USERS
    make_folder(folder, INDEX_CACHE_HINT)
    with locked(folder / ".lock", INDEX_CACHE_HINT):  # a command that starts now waits
        for path in sorted(folder.iterdir()):
            if path.name != ".lock" and (holder := lock_holder(path)) is not None:
                raise PicsError(f"{cache_folder()}: is in use ({holder})", "wait for that command to end, or stop it")
        for entry in entries:
            try:
                shutil.rmtree(entry.path) if entry.path.is_dir() else entry.path.unlink(missing_ok=True)
            except OSError as error:
                raise write_error(entry.path, error, "remove it yourself") from None
