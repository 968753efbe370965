"""Files that are written whole or not at all, fingerprints of files, and locks on folders with one writer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from pics_cli.errors import PicsError, read_error, write_error

_SAMPLE_BYTES, _MAX_BYTES = 1 << 16, 1 << 30
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


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading; a pipe, socket or device, which may be endless or never answer, is an error.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise OSError(errno.EINVAL, f"is {kinds.get(stat.S_IFMT(mode), 'a device')}, expected a file", str(path))
    return os.fdopen(handle, "rb")


def read_file(path: Path) -> bytes:
    """Contents of a file that is read whole, such as a picture.

    Raises:
        OSError: as `open_file`, or it holds more than can be a picture.
    """
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
    """Create a folder that can be written to.

    Raises:
        PicsError: it cannot be made, is a file, or is read-only.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise write_error(path, error, hint) from None


class AtomicFile:
    """A file that appears under its name only when complete: temporary name, fsync, rename, fsync of the folder.

    Writing goes through `write`; leaving the `with` block by an exception removes the temporary file.
    `bytes` and `sha256` describe what was written.

    Args:
        path: name of the complete file.
        temporary: name until then, on the same file system, for a file that only one process at a time writes: it
            overwrites what a killed one left. None: `path` with the process id, so that several may write it.
    """

    def __init__(self, path: Path, temporary: Path | None = None) -> None:
        self.path = path
        self.temporary = temporary or path.with_name(f"{path.name}.{os.getpid()}.tmp")
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
            raise write_error(self.path, error) from None

    def tell(self) -> int:
        return self.bytes

    def __enter__(self) -> AtomicFile:
        try:
            self._file: IO[bytes] = self.temporary.open("wb")
        except OSError as error:
            raise write_error(self.path, error) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _trace: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self.temporary.replace(self.path)
                sync_folder(self.path.parent)
        except OSError as error:
            raise write_error(self.path, error) from None
        finally:
            with contextlib.suppress(OSError):
                self._file.close()
            self.temporary.unlink(missing_ok=True)


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
    """Make a rename inside this folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class InUse(PicsError):
    """Another process holds a lock file.

    Attributes:
        path: the lock file.
        alive: whether its process is known to be running; False: it was on another machine and may have ended.
    """

    path: Path
    alive: bool


@contextlib.contextmanager
def single_writer(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Hold the folder's lock file, which names host and pid, while the block runs.

    The lock is an advisory file lock and ends with its process. A lock file left behind on this host is taken over;
    one of another host only by the same job of a batch scheduler, started again here, since whether its process still
    runs cannot be known.

    Args:
        folder: what is written to.
        name: of the lock file, where several may write to parts of the folder.

    Raises:
        InUse: another process writes here.
    """
    path = folder / name
    own = {"host": socket.gethostname(), "pid": os.getpid(), "job": os.environ.get("SLURM_JOB_ID")}
    try:
        handle = _open_lock(path)
    except OSError as error:
        raise write_error(path, error) from None
    if handle is None:
        raise _in_use(path, True)
    try:
        owner = _owner(os.read(handle, 4096))
        requeued = own["job"] is not None and owner.get("job") == own["job"]
        if owner.get("host", own["host"]) != own["host"] and not requeued:
            raise _in_use(path, False)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(own).encode(), 0)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path, hint: str = "choose another folder") -> Iterator[None]:
    """Wait for, then hold a lock that goes with its process, however that ends. The file stays: it is empty.

    Raises:
        PicsError: it cannot be made.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise write_error(path, error, hint) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _open_lock(path: Path) -> int | None:
    """The lock file, locked; None where another process holds it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:
            os.close(handle)
            raise
        # Whoever held it before may have removed the name between our open and our lock.
        if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
            return handle
        os.close(handle)


def _owner(text: bytes) -> dict[str, Any]:
    try:
        owner = load_json(text)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _in_use(path: Path, alive: bool) -> InUse:
    owner = _owner(path.read_bytes()) if path.exists() else {}
    process = f"pid {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
    error = InUse(
        f"{path.parent}: another writer is at work here ({process})",
        f"wait for it or choose another folder; if that process is gone, remove {path}",
    )
    error.path, error.alive = path, alive
    return error
