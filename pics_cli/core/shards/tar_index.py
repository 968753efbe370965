"""Index of a shard: the offset of each sample, so that any of them is a single read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pics_cli.core.runtime.files import INDEX_CACHE_HINT, AtomicFile, cache_folder, make_folder, read_at
from pics_cli.core.shards.shard_files import (
    MAX_SAMPLE,
    REBUILD_HINT,
    group_members,
    open_tar,
    open_tar_bytes,
    read_members,
)
from pics_cli.errors import BadSample, PicsError, read_error

SampleIndex = npt.NDArray[np.int64]
"""int64 [n + 1], ascending: sample i is the bytes from offset i to offset i + 1."""

_VERSION, _CHECK_BYTES = 2, 4


def index_shard(path: Path) -> SampleIndex:
    """Offsets of every sample of a local shard; cached for as long as its size and time are the same.

    A sample is a run of members with one key, as for `read_shard`; only headers are read.

    Raises:
        PicsError: the file is no tar or is truncated; the cache folder cannot be written.
    """
    cached = _cache_path(path)
    with contextlib.suppress(OSError):
        data, check = (text := cached.read_bytes())[:-_CHECK_BYTES], text[-_CHECK_BYTES:]
        if data and zlib.crc32(data).to_bytes(_CHECK_BYTES, "little") == check:  # else it is damaged
            return np.frombuffer(data, "<i8").astype(np.int64)
    with open_tar(path) as tar:
        starts = [infos[0].offset for _, infos in group_members(tar)]
        index = np.array([*starts, tar.offset], np.int64)
    make_folder(cached.parent, INDEX_CACHE_HINT)
    data = index.astype("<i8").tobytes()
    with AtomicFile(cached) as file:
        file.write(data + zlib.crc32(data).to_bytes(_CHECK_BYTES, "little"))
    return index


def is_indexed(path: Path) -> bool:
    """Whether the offsets of this shard are in the cache."""
    return _cache_path(path).exists()


def read_sample(path: Path, start: int, stop: int) -> tuple[str, Mapping[str, bytes]]:
    """Key and members of the sample between two offsets, by one read.

    Raises:
        PicsError: the file cannot be read, or has changed since it was indexed.
        FileNotFoundError: it does not exist any more.
        BadSample: as `read_shard`, for this sample alone.
    """
    if stop - start > 2 * MAX_SAMPLE:
        raise BadSample("too_large", f"{path}: {(stop - start) / 1e6:,.0f} MB at byte {start:,}")
    data = read_bytes(path, start, stop)
    try:
        with open_tar_bytes(data) as tar:
            groups = list(group_members(tar))
            if len(groups) == 1 and tar.offset == len(data):
                key, infos = groups[0]
                return key, read_members(tar, key, infos)
    except tarfile.TarError:
        pass
    raise PicsError(f"{path}: changed while it is read: no sample at byte {start:,}", REBUILD_HINT)


def read_bytes(path: Path, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a file. Every sample that is read passes here.

    Raises:
        PicsError: it cannot be read, or ends before.
        FileNotFoundError: there is no such file.
    """
    try:
        with path.open("rb", buffering=0) as file:
            data = read_at(file.fileno(), stop - start, start)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise read_error(path, error) from None
    if len(data) < stop - start:
        raise PicsError(f"{path}: ends at byte {start + len(data):,}, a sample reached to {stop:,}", REBUILD_HINT)
    return data


def _cache_path(path: Path) -> Path:
    try:
        stat = path.stat()
    except OSError as error:
        raise read_error(path, error) from None
    key = json.dumps([_VERSION, str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    return cache_folder() / "offsets" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.offsets"
