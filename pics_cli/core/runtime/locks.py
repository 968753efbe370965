"""Locks: of a folder with one writer, on any machine, and between the processes of this one.

A folder's lock is a lease: its holder writes down that it is alive, and where it has not done so for some minutes, its
machine is gone and the folder is another one's to take.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pics_cli.core.runtime.file_lock import LockedFile, lock_file
from pics_cli.core.runtime.files import as_remote, load_json
from pics_cli.core.runtime.signals import interrupt_this_process, process_runs
from pics_cli.errors import PicsError, write_error

if TYPE_CHECKING:
    from pics_cli.core.runtime.remote_path import RemotePath

logger = logging.getLogger(__name__)

# Seconds: how often a holder says that it is alive, and how old that may be. Clocks may differ by some minutes.
_HEARTBEAT, _LEASE = 60.0, 600.0
# Seconds after which a lock that was written without a condition is read back: another may have written it, too.
_SETTLE = 1.0


class InUse(PicsError):
    """Another process holds a lock file."""


@contextlib.contextmanager
def single_writer(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Hold the folder's lock file, which names host and pid and when they were last seen, while the block runs.

    In a local folder it is an advisory file lock, too, which ends with its process. A lock file left behind on this
    host is taken over; one of another host where it is the same job of a batch scheduler, started again here, or has
    not been renewed for ten minutes. A holder that finds its lock taken over (it slept, or could not reach the store)
    is interrupted.

    Args:
        folder: what is written to.
        name: of the lock file, where several may write to parts of the folder.

    Raises:
        InUse: another process writes here.
    """
    path = folder / name
    lease = _Lease(path)
    remote = as_remote(path)
    with _held_locally(lease) if remote is None else _held_in_store(lease, remote), _heartbeats.of(lease):
        yield


def lock_holder(path: Path) -> str | None:
    """Who holds the local lock file of a `single_writer`, such as `pid 7 on node3`; None: nobody, and it is removed.

    Raises:
        PicsError: it cannot be read.
    """
    try:
        file = lock_file(path)
    except OSError as error:
        raise write_error(path, error) from None
    owner = _read(path)
    if file is None:
        return _name(owner)
    try:
        renewed = owner.get("renewed", 0.0)
        if owner.get("host", socket.gethostname()) != socket.gethostname() and time.time() - renewed < _LEASE:
            return _name(owner)
        path.unlink(missing_ok=True)
        return None
    finally:
        file.close()


@contextlib.contextmanager
def locked(path: Path, hint: str = "choose another folder") -> Iterator[None]:
    """Wait for, then hold a lock that goes with its process, however that ends. The file stays: it is empty.

    Raises:
        PicsError: it cannot be made.
    """
    try:
        file = lock_file(path, wait=True)
    except OSError as error:
        raise write_error(path, error, hint) from None
    assert file is not None  # it was waited for
    try:
        yield
    finally:
        file.close()


@dataclass
class _Lease:
    """A lock file that this process holds, or asks for.

    Attributes:
        path: of the file.
        file: a local one.
        token: what no other holder has.
        lost: another one has taken it over.
    """

    path: Path
    file: LockedFile | None = None
    token: str = field(default_factory=lambda: uuid4().hex)
    lost: bool = False

    def contents(self) -> bytes:
        """What the file says now."""
        job = os.environ.get("SLURM_JOB_ID")
        return json.dumps(
            {"host": socket.gethostname(), "pid": os.getpid(), "job": job, "token": self.token, "renewed": time.time()}
        ).encode()

    def write(self) -> None:
        if remote := as_remote(self.path):
            remote.write_bytes(self.contents())
        elif self.file is not None:
            self.file.write(self.contents())

    def is_held(self) -> bool:
        """Whether the file says that this process holds it."""
        return bool(_read(self.path).get("token") == self.token)

    def renew(self) -> None:
        """Say that this process is alive; or find that another one holds the lock."""
        try:
            if self.is_held():
                self.write()
                return
        except (OSError, PicsError) as error:
            logger.warning("%s: cannot be renewed: %s", self.path, error)
            return
        self.lost = True
        logger.error("%s: another writer has taken over this folder, as this one had not been heard of", self.path)
        interrupt_this_process()


class _Heartbeats:
    """A thread that renews the leases of this process while there are any."""

    def __init__(self) -> None:
        self._leases = list[_Lease]()
        self._guard = threading.Lock()
        self._pid = 0

    @contextlib.contextmanager
    def of(self, lease: _Lease) -> Iterator[None]:
        with self._guard:
            self._leases.append(lease)
            if self._pid != os.getpid():  # a forked process has no threads of its parent
                self._pid = os.getpid()
                threading.Thread(target=self._beat, name="leases", daemon=True).start()
        try:
            yield
        finally:
            with self._guard:
                self._leases.remove(lease)

    def _beat(self) -> None:
        while True:
            time.sleep(_HEARTBEAT)
            with self._guard:
                for lease in self._leases:
                    if not lease.lost:
                        lease.renew()


_heartbeats = _Heartbeats()


@contextlib.contextmanager
def _held_locally(lease: _Lease) -> Iterator[None]:
    path = lease.path
    try:
        file = lock_file(path)
    except OSError as error:
        raise write_error(path, error) from None
    if file is None:
        raise _in_use(path, _read(path))
    try:
        owner = _parse(file.read())
        if owner.get("host", socket.gethostname()) != socket.gethostname():  # else it had the file lock, and is gone
            _take_over(path, owner, path.stat().st_mtime)
        lease.file = file
        lease.write()
        try:
            yield
        finally:
            if lease.is_held():
                path.unlink(missing_ok=True)
    finally:
        file.close()


@contextlib.contextmanager
def _held_in_store(lease: _Lease, remote: RemotePath) -> Iterator[None]:
    owner = _read(lease.path)
    if owner:
        if owner.get("host") != socket.gethostname() or _runs(owner):
            _take_over(lease.path, owner, 0.0)
        remote.unlink(missing_ok=True)
    with contextlib.suppress(FileExistsError):  # another one was faster; or this one, whose answer was lost
        remote.create(lease.contents())
    if owner:
        time.sleep(_SETTLE)
    if (now := _read(lease.path)).get("token") != lease.token:
        raise _in_use(lease.path, now)
    _own_tokens.add(lease.token)
    try:
        yield
    finally:
        _own_tokens.discard(lease.token)
        with contextlib.suppress(PicsError):  # the store is gone: so will be the lease, in a while
            if lease.is_held():
                remote.unlink(missing_ok=True)


_own_tokens = set[str]()


def _runs(owner: dict[str, Any]) -> bool:
    """Whether a process of this host is running; one in a container often has its predecessor's pid."""
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    if pid == os.getpid():
        return owner.get("token") in _own_tokens
    return process_runs(pid)


def _take_over(path: Path, owner: dict[str, Any], modified: float) -> None:
    """Say that a lock is taken over whose holder is gone.

    Raises:
        InUse: it may be there.
    """
    job = os.environ.get("SLURM_JOB_ID")
    renewed = owner.get("renewed", modified)
    age = time.time() - (renewed if isinstance(renewed, int | float) else modified)
    if job is not None and owner.get("job") == job:
        return
    if age < _LEASE:
        raise _in_use(path, owner)
    logger.warning("%s: taken over: %s has not been heard of for %.0f minutes", path, _name(owner), age / 60)


def _read(path: Path) -> dict[str, Any]:
    """What a lock file says; {} where there is none."""
    try:
        return _parse(path.read_bytes()[:4096])
    except FileNotFoundError:
        return {}


def _parse(text: bytes) -> dict[str, Any]:
    try:
        owner = load_json(text)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _name(owner: dict[str, Any]) -> str:
    return f"pid {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"


def _in_use(path: Path, owner: dict[str, Any]) -> InUse:
    return InUse(
        f"{path.parent}: another writer is at work here ({_name(owner)})",
        f"wait for it or choose another folder; if it is gone, wait {_LEASE / 60:.0f} minutes or remove {path}",
    )
