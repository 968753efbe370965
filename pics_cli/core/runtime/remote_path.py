"""A path of a store: a `UPath` (universal_pathlib, over fsspec) whose requests are tried again, and whose errors are
the operating system's, or one line that says what the store said.

Imported where an address is one of a store, never before: fsspec and its packages take their time.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import fsspec
from fsspec import AbstractFileSystem
from fsspec.config import conf
from upath import UPath
from upath.extensions import ProxyUPath

from pics_cli.core.runtime.http_files import HttpFiles
from pics_cli.core.runtime.store_errors import final_answer, reason_in_words
from pics_cli.errors import FAILED, PicsError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds between tries: a server that restarts is worth waiting for.
PAUSES = (1.0, 4.0, 15.0)
# What is asked for at a time of a file that is read from its begin to its end.
_READ_AHEAD = 8 << 20
_MAX_BYTES = 1 << 30
# Stores of keys that look like paths; in all others folders are made, and a file is renamed when it is complete.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "hf", "http", "https"}
# Other machines write there, too: what a listing said a moment ago is not what there is.
for _scheme in _OBJECT_STORES - {"http", "https"}:
    conf.setdefault(_scheme, {}).setdefault("use_listings_cache", False)


class RemotePath(ProxyUPath):
    """A path of a store, with the methods of `pathlib.Path` that make sense there.

    `exists`, `stat`, `open` and so on raise `FileNotFoundError` and its like as Path does, and `PicsError` where the
    store cannot be reached, refuses, or is full.
    """

    __slots__ = ()

    def __str__(self) -> str:
        path, options = self.__wrapped__, self.storage_options
        if "host" not in options or not path.is_absolute():
            return str(path)
        user = f"{options['username']}@" if "username" in options else ""
        port = f":{options['port']}" if "port" in options else ""
        return f"{self.protocol}://{user}{options['host']}{port}{path.path}"

    __repr__ = __str__

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    @property
    def fs(self) -> AbstractFileSystem:
        """The store, as this thread of this process is connected to it."""
        if self.protocol in ("http", "https"):
            return HttpFiles()
        return fsspec.filesystem(self.protocol, **self.storage_options)

    @property
    def has_folders(self) -> bool:
        """Whether the store has real folders, and renames files."""
        return self.protocol not in _OBJECT_STORES

    def ask(self, request: Callable[[AbstractFileSystem, str], T], writing: bool = False) -> T:
        """The answer to a request, a function of the store and this path's name there; asked again where that may help.

        Raises:
            OSError: `FileNotFoundError` and its like.
            PicsError: any other failure.
        """
        for pause in (*PAUSES, None):
            try:
                return request(self.fs, self.path)
            except Exception as error:  # whatever the packages of a hundred stores raise
                if answer := final_answer(error, str(self), writing):
                    raise answer from None
                reason = reason_in_words(error)
            if pause is None:
                break
            logger.debug("%s: %s; once more in %g s", self, reason, pause)
            if self.protocol not in ("http", "https"):  # a connection that broke stays so
                fsspec.get_filesystem_class(self.protocol).clear_instance_cache()
            time.sleep(pause)
        what = "written" if writing else "read"
        raise PicsError(f"{self}: cannot be {what}: {reason}", "run the same command again once that is mended", FAILED)

    def describe(self) -> dict[str, Any]:
        """What the store says of a file or folder: `type`, `size` and more.

        Raises:
            FileNotFoundError: there is neither.
        """
        return dict(self.ask(lambda fs, path: fs.info(path)))

    def entries(self) -> dict[str, dict[str, Any]]:
        """What lies in this folder by name, as `describe` says it, from one listing.

        Raises:
            FileNotFoundError: no such folder.
        """
        found = self.ask(lambda fs, path: fs.ls(path, detail=True))
        own = self.path.rstrip("/")
        listed = {
            entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in found if entry["name"].rstrip("/") != own
        }
        if not listed and found and found[0]["type"] != "directory":
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self))
        return listed

    def files_below(self) -> dict[str, dict[str, Any]]:
        """Every file below this folder by its path relative to it, as `describe` says it."""
        found = self.ask(lambda fs, path: fs.find(path, detail=True))
        own = self.path.rstrip("/")
        return {name.removeprefix(own).lstrip("/"): entry for name, entry in sorted(found.items()) if name != own}

    def exists(self, *, follow_symlinks: bool = True) -> bool:  # noqa: ARG002
        return self._type() != ""

    def is_dir(self) -> bool:
        return self._type() == "directory"

    def is_file(self) -> bool:
        return self._type() not in ("", "directory")

    def _type(self) -> str:
        try:
            return str(self.describe()["type"])
        except FileNotFoundError:
            return ""

    def stat(self, *, follow_symlinks: bool = True) -> Any:  # noqa: ARG002
        from upath._stat import UPathStatResult

        return UPathStatResult.from_info(self.describe())

    def iterdir(self) -> Iterator[RemotePath]:
        yield from (self / name for name in self.entries())

    def glob(self, pattern: str, **_: Any) -> Iterator[RemotePath]:
        own = self.path.rstrip("/")
        for name in self.ask(lambda fs, path: fs.glob(f"{glob.escape(path.rstrip('/'))}/{pattern}")):
            yield self / name.removeprefix(own).strip("/")

    def rglob(self, pattern: str, **_: Any) -> Iterator[RemotePath]:
        return self.glob(f"**/{pattern}")

    def resolve(self, strict: bool = False) -> RemotePath:  # noqa: ARG002
        return self

    def absolute(self) -> RemotePath:
        return self

    def expanduser(self) -> RemotePath:
        return self

    def read_bytes(self) -> bytes:
        """The whole file, which holds no more than can be a picture.

        Raises:
            FileNotFoundError: there is none.
            OSError: it holds more.
        """

        def read(fs: AbstractFileSystem, path: str) -> bytes:
            try:  # a range, which saves the question how long the file is
                return bytes(fs.cat_file(path, start=0, end=_MAX_BYTES + 1))
            except (OSError, ValueError):
                if fs.info(path)["size"] == 0:  # of which there is no range
                    return b""
                raise

        data = self.ask(read)
        if len(data) > _MAX_BYTES:
            raise OSError(errno.EFBIG, f"holds more than {_MAX_BYTES:,} bytes", str(self))
        return data

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:  # noqa: ARG002
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), fewer at the end of the file."""
        return bytes(self.ask(lambda fs, path: fs.cat_file(path, start=start, end=stop)))

    def open(self, mode: str = "r", buffering: int = -1, *_: Any, encoding: str | None = None, **__: Any) -> IO[Any]:  # type: ignore[override]
        """The file for reading, in large ranges. Writing goes through `AtomicFile`."""
        if mode not in ("r", "rt", "rb"):
            raise NotImplementedError(f"{self}: opened for writing")
        info = self.describe()
        if info["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self))
        file = io.BufferedReader(_Ranges(self, int(info["size"])), buffering if buffering > 0 else _READ_AHEAD)
        return file if mode == "rb" else io.TextIOWrapper(file, encoding or "utf-8")

    def download(self, target: Path) -> None:
        """Copy the file to a local one, whose time is the same.

        Raises:
            OSError: there is no such file.
            PicsError: it cannot be fetched, or not whole.
        """
        info = self.describe()

        def fetch(fs: AbstractFileSystem, path: str) -> None:
            fs.get_file(path, str(target))
            if (received := target.stat().st_size) != info["size"]:
                raise ConnectionError(f"the connection ended after {received:,} of {info['size']:,} bytes")

        self.ask(fetch)
        if (modified := modified_ns(info)) is not None:
            os.utime(target, ns=(time.time_ns(), modified))

    def upload(self, source: Path, temporary: Path) -> None:
        """Write the file, whole or not at all, from a local one; `temporary` is its name until then, if any."""
        if not self.has_folders:
            self.ask(lambda fs, path: fs.put_file(str(source), path), writing=True)
            return
        half = cast(RemotePath, temporary)

        def put(fs: AbstractFileSystem, path: str) -> None:
            fs.put_file(str(source), half.path)
            fs.mv(half.path, path)

        try:
            self.ask(put, writing=True)
        except PicsError:
            with contextlib.suppress(OSError, PicsError):
                half.unlink(missing_ok=True)
            raise

    def write_bytes(self, data: bytes) -> int:
        self.ask(lambda fs, path: fs.pipe_file(path, data), writing=True)
        return len(data)

    def create(self, data: bytes) -> None:
        """Write a small file that must not exist yet, where the store can hold on to that.

        Raises:
            FileExistsError: it exists.
        """

        def put(fs: AbstractFileSystem, path: str) -> None:
            try:
                fs.pipe_file(path, data, mode="create")
            except (OSError, ValueError, TypeError, NotImplementedError) as error:
                if fs.exists(path):
                    raise FileExistsError(errno.EEXIST, "exists", path) from None
                if isinstance(error, OSError) and error.errno != errno.ENOSYS:
                    raise
                fs.pipe_file(path, data)  # by a store without conditional writes

        self.ask(put, writing=True)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self.ask(_remove_file, writing=True)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove(self, names: list[str]) -> None:
        """Remove files of this store by their names there, where they are."""
        # At once where that is one request, and where no name is taken for a pattern.
        together = [name for name in names if not self.has_folders and not glob.has_magic(name)]
        with contextlib.suppress(FileNotFoundError):
            if together:
                self.ask(lambda fs, _: fs.rm(together), writing=True)
        for name in names:
            if name not in together:
                with contextlib.suppress(FileNotFoundError):
                    self.ask(partial(_remove_file, name=name), writing=True)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:  # noqa: ARG002
        """Make a folder where the store has them; buckets are never made."""
        if self.has_folders:
            self.ask(lambda fs, path: fs.makedirs(path, exist_ok=exist_ok), writing=True)


class _Ranges(io.RawIOBase):
    """A file of a store of which what is asked for is fetched."""

    def __init__(self, path: RemotePath, size: int) -> None:
        self._path, self._size, self._at = path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(self._size - self._at)

    def _read(self, count: int) -> bytes:
        stop = min(self._at + count, self._size)
        data = self._path.read_range(self._at, stop) if self._at < stop else b""
        self._at += len(data)
        return data


def _remove_file(fs: AbstractFileSystem, path: str, name: str | None = None) -> None:
    try:
        fs.rm_file(name or path)
    except NotImplementedError:
        fs.rm(name or path)


def open_path(url: str) -> RemotePath:
    """The path of an address that was looked at: see `storage.location`."""
    return RemotePath._from_upath(UPath(url))


def identity(info: dict[str, Any]) -> list[Any]:
    """Of what a store says of a file, what tells it from an earlier one of the same name."""
    tags = [str(info[key]) for key in ("ETag", "etag", "md5Hash", "content_md5", "blob_id") if info.get(key)]
    return [info["size"], *tags[:1], *([] if tags else [modified_ns(info)])]


def modified_ns(info: dict[str, Any]) -> int | None:
    """When a file was written, in nanoseconds since 1970; None where the store does not say."""
    from upath._stat import UPathStatResult

    try:
        return int(UPathStatResult.from_info(info).st_mtime_ns) or None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
