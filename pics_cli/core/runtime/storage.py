"""The door to storage: local paths, and addresses such as s3://bucket/folder, which fsspec's packages speak to.

Both are used as `pathlib.Path` is. What must be a real file is fetched into the cache folder, once for all processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from pics_cli.core.runtime.extras import require
from pics_cli.core.runtime.files import as_remote, cache_folder, make_folder
from pics_cli.core.runtime.locks import locked
from pics_cli.errors import PicsError

T = TypeVar("T")
logger = logging.getLogger(__name__)

# Files of a store that are read at a time.
_THREADS = 16
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//?)")
# Our extra that speaks to a store, and the package that does where none of ours has it.
_EXTRAS = {
    "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "sftp": "sftp",
    "ssh": "sftp",
}  # fmt: skip
_PACKAGES = {"smb": "smbprotocol", "hf": "huggingface_hub"}
_HINT = "fetched files are kept there: name another folder with PICS_CACHE=DIR"
CACHE_GB = 50.0


def location(text: str) -> Path:
    """The path that a user names: a local one, or an address of a store, which has the methods of one.

    Nothing is looked up there. `file://` is local.

    Raises:
        PicsError: an unknown scheme, or one whose package is not installed; no host or bucket in it, or a password.
    """
    match = _SCHEME.match(text)
    if match is None:
        if "://" in text:
            raise PicsError(f"{text}: no address: expected SCHEME://…, such as s3://bucket/folder")
        return Path(text)
    scheme, slashes = match[1].lower(), match[2]
    if slashes == "/":
        if scheme in {**_EXTRAS, **_PACKAGES} or scheme in ("http", "https", "file"):
            raise PicsError(f"{text}: no address: expected {scheme}://…", "two slashes follow the scheme")
        return Path(text)
    rest = text[match.end() :]
    if scheme in ("file", "local"):
        return Path(rest)
    if scheme in _EXTRAS:
        require(_EXTRAS[scheme], f"{scheme}://")
    import fsspec

    try:
        if scheme not in ("http", "https"):  # which are ours
            fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        hint = f"pip install '{package}'" if package else str(error)
        raise PicsError(f"{text}: {scheme}:// needs a package that is not installed", hint) from None
    except ValueError:
        known = ", ".join(f"{name}://" for name in ("s3", "gs", "az", "hf", "sftp", "https"))
        raise PicsError(
            f"{text}: unknown scheme {scheme}://", f"known are {known} and what else fsspec knows"
        ) from None
    host = rest.partition("/")[0]
    if not host:
        raise PicsError(f"{text}: names no host or bucket", f"expected {scheme}://NAME/FOLDER")
    if ":" in host.rpartition("@")[0]:
        raise PicsError(
            f"{scheme}://{host.rpartition('@')[2]}: has a password in its address, which manifests would repeat",
            "leave it out: credentials come from the environment, or from where the store's own tools keep them",
        )
    from pics_cli.core.runtime.remote_path import open_path

    try:
        return cast(Path, open_path(f"{scheme}://{rest}"))
    except ValueError as error:
        raise PicsError(f"{text}: no address: {error}") from None


def is_remote(path: Path) -> bool:
    """Whether a path is one of a store."""
    return as_remote(path) is not None


class Entry(NamedTuple):
    """What lies in a folder.

    Attributes:
        is_dir: it is a folder.
        size: in bytes, of a file.
    """

    is_dir: bool
    size: int


def list_folder(folder: Path) -> dict[str, Entry]:
    """What lies in a folder by name, from one listing.

    Raises:
        OSError: no such folder.
    """
    if remote := as_remote(folder):
        listed = remote.entries()
        return {name: Entry(info["type"] == "directory", int(info["size"] or 0)) for name, info in listed.items()}
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # a link to nothing
                found[entry.name] = Entry(entry.is_dir(), entry.stat().st_size)
    return found


def is_address(text: str) -> bool:
    """Whether a text is written as an address, `scheme://…`."""
    return "://" in text


def file_names(folder: Path) -> set[str]:
    """Names of what lies in a folder, from one listing; none where there is no such folder."""
    try:
        return {*list_folder(folder)}
    except FileNotFoundError:
        return set()


def map_files(function: Callable[[Path], T], paths: Sequence[Path]) -> Iterator[T]:
    """Results of a function that reads each of some files, in their order; of a store several are read at a time."""
    if not paths or not is_remote(paths[0]):
        yield from map(function, paths)
        return
    with ThreadPoolExecutor(min(_THREADS, 1 + len(paths) // _THREADS)) as pool:
        yield from pool.map(function, paths)


def local_file(path: Path, cache_gb: float = CACHE_GB) -> Path:
    """A real file: the path itself, or its copy in the cache folder, fetched once for all processes.

    Copies are known by address, size and the store's tag (or time): a file that was replaced is fetched again. The
    least recently used are removed where all of them would take more than `cache_gb`.

    Raises:
        OSError: there is no such file.
        PicsError: it cannot be fetched.
    """
    remote = as_remote(path)
    if remote is None:
        return path
    from pics_cli.core.runtime.remote_path import identity

    info = remote.describe()
    if info["type"] == "directory":
        raise IsADirectoryError(21, "Is a directory", str(path))
    key = [str(path), *identity(info)]
    return _cached(key, lambda folder: remote.download(folder / remote.name), cache_gb) / remote.name


def local_folder(path: Path, cache_gb: float = CACHE_GB) -> Path:
    """A real folder: the path itself, or a copy of all files below it, as `local_file` keeps them.

    Raises:
        OSError: there is no such folder.
        PicsError: it cannot be fetched.
    """
    remote = as_remote(path)
    if remote is None:
        return path
    from pics_cli.core.runtime.remote_path import identity

    files = remote.files_below()
    if not files:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    def fetch(folder: Path) -> None:
        for name in files:
            target = folder / name
            if not target.resolve().is_relative_to(folder.resolve()):
                raise PicsError(f"{path}: holds {name!r}, which is no path inside it")
            target.parent.mkdir(parents=True, exist_ok=True)
            remote.joinpath(name).download(target)

    return _cached([str(path), *([name, *identity(info)] for name, info in files.items())], fetch, cache_gb)


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files that may be there; of a store many with one request."""
    stored: list[Path] = []
    for path in paths:
        if is_remote(path):
            stored.append(path)
        else:
            path.unlink(missing_ok=True)
    if stored:
        remotes = [remote for path in stored if (remote := as_remote(path))]
        remotes[0].remove([remote.path for remote in remotes])


@contextlib.contextmanager
def borrowed_file(path: Path) -> Iterator[Path]:
    """A real file for the time of the block, for what is read once: the path itself, or a temporary copy.

    Raises:
        OSError: there is no such file.
        PicsError: it cannot be fetched.
    """
    remote = as_remote(path)
    if remote is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="pics-") as folder:
        copy = Path(folder) / path.name
        remote.download(copy)
        yield copy


def _cached(key: list[object], fetch: Callable[[Path], None], cache_gb: float) -> Path:
    """The folder of the cache that holds what `fetch` wrote into a folder for this key."""
    folder = cache_folder() / "fetched" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    if _touch(folder):
        logger.debug("%s: fetched before, in %s", key[0], folder)
    else:
        make_folder(folder.parent, _HINT)
        with locked(folder.with_suffix(".lock"), _HINT):
            if not _touch(folder):
                work = folder.with_suffix(".tmp")  # only the holder of the lock writes it
                shutil.rmtree(work, ignore_errors=True)
                make_folder(work, _HINT)
                fetch(work)
                work.rename(folder)
                _evict(folder, cache_gb)
    return folder


def _touch(folder: Path) -> bool:
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    return True


def _evict(newest: Path, cache_gb: float) -> None:
    """Remove the least recently used copies."""
    cached = []
    for folder in newest.parent.iterdir():
        if folder.suffix or not folder.is_dir():
            continue
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        cached.append((folder != newest, -folder.stat().st_mtime_ns, size, folder))
    total = 0
    for evictable, _, size, folder in sorted(cached):
        total += size
        if evictable and total > cache_gb * 1e9:
            shutil.rmtree(folder, ignore_errors=True)
