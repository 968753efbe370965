"""Files that are written whole or not at all, and fingerprints of files; local ones, and those of a store.

The path of a store (see `storage.location`) has the methods of a Path, but is none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import socket
import stat
import sys
import tempfile
import threading
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from pics_cli.errors import PicsError, read_error, write_error

if TYPE_CHECKING:
    from pics_cli.core.runtime.remote_path import RemotePath

_SAMPLE_BYTES, _MAX_BYTES = 1 << 16, 1 << 30
# Flags of a file that is read, as far as a system knows them; a pipe into which nobody writes is not waited for.
_READING = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_position_guard = threading.Lock()
INDEX_CACHE_HINT = "indexes live there: name another folder with PICS_CACHE=DIR"


def cache_folder() -> Path:
    """Where indexes live: `PICS_CACHE`, else the user's cache folder.

    Raises:
        PicsError: the user has no home folder, or `PICS_CACHE` names a variable that is not set.
    """
    try:
        if chosen := os.environ.get("PICS_CACHE"):
            return Path(expand_path(chosen))
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pics"
    except ValueError as error:
        raise PicsError(f"PICS_CACHE: got {chosen}: {error}", INDEX_CACHE_HINT) from None
    except RuntimeError as error:  # neither HOME nor an entry in the user database
        raise PicsError(f"no cache folder: {error}", INDEX_CACHE_HINT) from None


def expand_path(path: str) -> str:
    """A path with `~` and $VARIABLES replaced as a shell does.

    Raises:
        ValueError: a variable that is not set, or no home folder.
    """
    expanded = os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111  # Path raises where there is no home
    if unknown := re.search(r"\$(\w+|\{\w+\})", expanded):
        raise ValueError(f"{unknown[0]} is not set")
    if expanded.startswith("~"):
        name = expanded.partition("/")[0]
        raise ValueError(f"no home folder of {name} is known; ./{name} is a file of that name")
    return expanded


def as_remote(path: Path) -> RemotePath | None:
    """The path of a store as what it is; None of a local one."""
    return None if isinstance(path, Path) else cast("RemotePath", path)


def open_file(path: Path, buffering: int = -1) -> BinaryIO:
    """Open a file for reading; a pipe, socket or device, which may be endless or never answer, is an error.

    Args:
        path: of the file.
        buffering: bytes that are read, or fetched from a store, at a time; -1: what does well for a whole file.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    if remote := as_remote(path):
        return cast(BinaryIO, remote.open("rb", buffering))
    handle = open_handle(path)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise OSError(errno.EINVAL, f"is {kinds.get(stat.S_IFMT(mode), 'a device')}, expected a file", str(path))
    return os.fdopen(handle, "rb", buffering)


def open_handle(path: Path) -> int:
    """A file opened for reading, as the system numbers it, for `read_at`.

    Raises:
        OSError: it cannot be opened.
    """
    return os.open(path, _READING)


def read_at(handle: int, length: int, offset: int) -> bytes:
    """Bytes of an open file from a position on; threads may share it.

    Raises:
        OSError: it cannot be read.
    """
    if hasattr(os, "pread"):
        return os.pread(handle, length, offset)
    with _position_guard:  # on Windows a file has one position
        os.lseek(handle, offset, os.SEEK_SET)
        return os.read(handle, length)


def read_file(path: Path) -> bytes:
    """Contents of a file that is read whole, such as a picture.

    Raises:
        OSError: as `open_file`, or it holds more than can be a picture.
    """
    if remote := as_remote(path):
        return remote.read_bytes()
    with open_file(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > _MAX_BYTES:
            raise OSError(errno.EFBIG, f"holds {size:,} bytes, expected at most {_MAX_BYTES:,}", str(path))
        return file.read()


def load_json(text: bytes | str) -> Any:
    """The data of a JSON text that a file holds.

    Raises:
        ValueError: it is none, or nested beyond measure, which Python's reader answers with a RecursionError.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("no JSON that can be read: nested too deeply") from None


def fingerprint(path: Path) -> dict[str, int | str]:
    """Size and sha256 of head and tail (64 kB each): tells large files apart without reading them whole."""
    if remote := as_remote(path):
        size = int(remote.describe()["size"])
        text = remote.read_range(0, min(size, _SAMPLE_BYTES)) if size else b""
        text += remote.read_range(max(0, size - _SAMPLE_BYTES), size) if size else b""
        return {"bytes": size, "head_and_tail": hashlib.sha256(text).hexdigest()}
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        text = file.read(_SAMPLE_BYTES)
        file.seek(max(0, size - _SAMPLE_BYTES))
        text += file.read(_SAMPLE_BYTES)
    return {"bytes": size, "head_and_tail": hashlib.sha256(text).hexdigest()}


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file, read in blocks.

    Raises:
        PicsError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open_file(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise read_error(path, error) from None
    return digest.hexdigest()


def file_crc32(path: Path) -> int:
    """CRC-32 of a file, read in blocks: tells damage, not malice.

    Raises:
        OSError: it cannot be read.
    """
    check = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            check = zlib.crc32(block, check)
    return check


def make_folder(path: Path, hint: str = "choose another folder") -> None:
    """Create a folder that can be written to. In a store whether it can is seen when something is.

    Raises:
        PicsError: it cannot be made, is a file, or is read-only.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if as_remote(path) is None and not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise write_error(path, error, hint) from None


class AtomicFile:
    """A file that appears under its name only when complete: temporary name, fsync, rename, fsync of the folder.

    Writing goes through `write`; leaving the `with` block by an exception removes the temporary file.
    `bytes` and `sha256` describe what was written. A store's file is written to this machine's folder of temporary
    files (`TMPDIR`), and uploaded when it is complete.

    Args:
        path: name of the complete file.
        temporary: name until then, on the same file system, for a file that only one process at a time writes: it
            overwrites what a killed one left. None: `path` with a number of the process, so that several may write it.
    """

    def __init__(self, path: Path, temporary: Path | None = None) -> None:
        self.path = path
        self._remote = as_remote(path)
        self.temporary = temporary or path.with_name(f"{path.name}.{writer_number()}.tmp")
        self.bytes = 0
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        self._hash.update(data)
        self.bytes += len(data)
        try:
            return self._file.write(data)
        except OSError as error:
            raise self._write_error(error) from None

    def tell(self) -> int:
        return self.bytes

    def __enter__(self) -> AtomicFile:
        try:
            if self._remote is None:
                self._file: IO[bytes] = self.temporary.open("wb")
            else:
                self._file = cast(IO[bytes], tempfile.NamedTemporaryFile(prefix="pics-"))
        except OSError as error:
            raise self._write_error(error) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _trace: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                if self._remote is None:
                    os.fsync(self._file.fileno())
                    self._file.close()
                    self.temporary.replace(self.path)
                    sync_folder(self.path.parent)
                else:
                    self._remote.upload(Path(self._file.name), self.temporary)
        except OSError as error:
            raise self._write_error(error) from None
        finally:
            with contextlib.suppress(OSError):
                self._file.close()
            if self._remote is None:
                self.temporary.unlink(missing_ok=True)

    def _write_error(self, error: OSError) -> PicsError:
        if self._remote is None:
            return write_error(self.path, error)
        where = f"{tempfile.gettempdir()} (on the way to {self.path})"
        return write_error(Path(where), error, "name another folder for temporary files with TMPDIR=DIR")


def writer_number() -> str:
    """A number of this process that no other one has, on this machine or another."""
    return f"{zlib.crc32(socket.gethostname().encode()):010d}{os.getpid()}"


def write_json(path: Path, data: Any, temporary: Path | None = None) -> None:
    """Write data as indented JSON, whole or not at all; `temporary` as in `AtomicFile`."""
    with AtomicFile(path, temporary) as file:
        file.write((json.dumps(data, indent=1) + "\n").encode())


def apply_umask(path: Path) -> None:
    """Give a file the mode that the umask leaves new files: safetensors makes files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def sync_folder(path: Path) -> None:
    """Make a rename inside this folder survive a power cut; Windows does so by itself and opens no folders."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
