"""Where each sample of a shard lies, so that any one of them is a single read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pics_cli.core.runtime.files import AtomicFile, cache_folder, make_folder
from pics_cli.core.shards.shard_files import group_members, open_tar, read_members
from pics_cli.errors import PicsError, read_error

SampleIndex = npt.NDArray[np.int64]
"""[n + 1], ascending: sample i is the bytes from i to i + 1."""

_VERSION = 1
_AGAIN = "build or download it again"
_HINT = "indexes live there: name another folder with PICS_CACHE=DIR"


def index_shard(path: Path) -> SampleIndex:
    """Offsets of every sample of a local shard; kept in the cache folder for as long as its size and time are the same.

    A sample is a run of members with one key, as for `read_shard`; only headers are read.

    Raises:
        PicsError: the file is no tar or is truncated; the cache folder cannot be written.
    """
    kept = _kept(path)
    try:
        with kept.open("rb") as file:
            return _checked(np.load(file))
    except (OSError, ValueError, EOFError):  # not there, or damaged: it can be made again
        index = _scan(path)
    make_folder(kept.parent, _HINT)
    packed = io.BytesIO()
    np.save(packed, index)
    with AtomicFile(kept) as whole:
        whole.write(packed.getvalue())
    return index


def is_indexed(path: Path) -> bool:
    """Whether the offsets of this shard are in the cache folder already."""
    return _kept(path).exists()


def read_sample(path: Path, start: int, stop: int) -> tuple[str, Mapping[str, bytes]]:
    """Key and members of the sample that lies between two offsets, by one read.

    Raises:
        PicsError: the file cannot be read, or has changed since it was indexed.
        FileNotFoundError: it is gone.
        BadSample: as `read_shard`, for this sample alone.
    """
    data = read_bytes(path, start, stop)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            found = list(group_members(tar))
            if len(found) == 1 and tar.offset == len(data):
                key, infos = found[0]
                return key, read_members(tar, key, infos)
    except tarfile.TarError:
        pass
    raise PicsError(f"{path}: changed while it is read: no sample at byte {start:,}", _AGAIN)


def read_bytes(path: Path, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a file. Every sample that is read passes here.

    Raises:
        PicsError: it cannot be read, or ends before.
        FileNotFoundError: there is no such file.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            data = os.pread(handle, stop - start, start)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise read_error(path, error) from None
    if len(data) < stop - start:
        raise PicsError(f"{path}: ends at byte {start + len(data):,}, a sample reached to {stop:,}", _AGAIN)
    return data


def _scan(path: Path) -> SampleIndex:
    with open_tar(path) as tar:
        starts = [infos[0].offset for _, infos in group_members(tar)]
        return np.array([*starts, tar.offset], np.int64)


def _checked(index: npt.NDArray[np.int64]) -> SampleIndex:
    if index.dtype != np.int64 or index.ndim != 1 or not len(index) or (np.diff(index) <= 0).any():
        raise ValueError("no index of a shard")
    return index


def _kept(path: Path) -> Path:
    try:
        state = path.stat()
    except OSError as error:
        raise read_error(path, error) from None
    key = json.dumps([_VERSION, str(path.resolve()), state.st_size, state.st_mtime_ns])
    return cache_folder() / "offsets" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
