"""Exclusive locks on local files, which end with their process: the system's own, or `filelock`'s where Python has no
`fcntl`, on Windows."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


class LockedFile:
    """A file that this process alone holds.

    Args:
        path: of the file.
        handle: of it; None: it is opened for each access, as Windows removes no open file.
        release: gives it back.
    """

    def __init__(self, path: Path, handle: int | None, release: Callable[[], object]) -> None:
        self.path, self.handle, self._release = path, handle, release

    def read(self) -> bytes:
        """Its contents."""
        return self.path.read_bytes() if self.handle is None else os.pread(self.handle, 4096, 0)

    def write(self, data: bytes) -> None:
        """Replace its contents, in place."""
        if self.handle is None:
            self.path.write_bytes(data)
        else:  # not by its name, which another one may have by now
            os.pwrite(self.handle, data, 0)
            os.ftruncate(self.handle, len(data))

    def close(self) -> None:
        """Give it back; the file stays."""
        self._release()


def lock_file(path: Path, wait: bool = False) -> LockedFile | None:
    """Lock a file, which is made where there is none; None: another process holds it.

    Args:
        path: of the file.
        wait: until nobody else holds it.

    Raises:
        OSError: it cannot be made or locked.
    """
    if fcntl is None:
        return _lock_beside(path, wait)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        # Whoever held it before may have removed the name between our open and our lock.
        if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
            return LockedFile(path, handle, functools.partial(os.close, handle))
        os.close(handle)


def _lock_beside(path: Path, wait: bool) -> LockedFile | None:
    """Lock a file of its own, so that others can read this one."""
    import filelock

    held = filelock.FileLock(f"{path}.held")
    try:
        held.acquire(timeout=-1 if wait else 0)
    except filelock.Timeout:
        return None
    path.touch()
    return LockedFile(path, None, held.release)
