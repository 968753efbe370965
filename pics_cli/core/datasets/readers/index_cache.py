"""Indexes of large annotation files in the user's cache folder: built once, reopened while the file is the same."""

from __future__ import annotations

import codecs
import gc
import gzip
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt

from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.core.runtime.engines import is_worker
from pics_cli.core.runtime.files import (
    INDEX_CACHE_HINT,
    cache_folder,
    file_crc32,
    fingerprint,
    load_json,
    make_folder,
    open_file,
    open_handle,
    read_at,
)
from pics_cli.core.runtime.locks import locked
from pics_cli.core.runtime.signals import process_runs
from pics_cli.core.runtime.storage import local_file
from pics_cli.errors import PicsError, read_error, write_error

logger = logging.getLogger(__name__)
T = TypeVar("T")

INDEX_METADATA, _CHECKSUMS = "meta.json", "checksums.json"
_PLAIN_TEXT = "text.json"
_GZIP = b"\x1f\x8b"
# A json's text takes a tenth of its room when compressed; this much more is an attack, or no text.
_MAX_EXPANSION, _SMALL = 200, 64 << 20
_CHUNK = 1 << 22
_PIECE = 1 << 26


class SpanIndex:
    """A json opened through an index of where its records stand, for single ones to be read.

    Attributes:
        path: the json as UTF-8.
        metadata: what the index's builder wrote.
        source: size and fingerprint of the json.
        bad_records: records left out.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = plain_json(path, folder)
        self.metadata: dict[str, Any] = load_json((folder / INDEX_METADATA).read_bytes())
        self.source: dict[str, Any] = self.metadata["source"]
        self.bad_records = BadRecords(**self.metadata["bad"])
        self._spans: npt.NDArray[np.int64] = np.load(folder / "spans.npy", mmap_mode="r")
        self._file: int | None = None

    def __len__(self) -> int:
        return len(self._spans)

    def read(self, offset: int, length: int) -> bytes:
        """A record's text."""
        if self._file is None:
            self._file = open_handle(self.path)
        return read_at(self._file, length, offset)


def open_cached_index(
    path: Path, version: str, build: Callable[[Path, Path, dict[str, Any]], None], load: Callable[[Path], T]
) -> T:
    """Open the index of an annotation file, building it first where the cache has none for this very file.

    Building takes a second for every 60 MB or so, and is logged.

    Args:
        path: the annotation file.
        version: of the index's format.
        build: from the file as UTF-8 (see `plain_json`) writes the index, `INDEX_METADATA` among it, into an empty
            folder; the third argument is the fingerprint of the annotation file.
        load: opens such a folder.

    Raises:
        PicsError: the file cannot be read, or the cache folder not written.
    """
    folder, source = _index_folder(path, version)
    _opened[path] = CachedIndex(path, version, source)
    logger.debug("the index of %s: %s", path, folder)

    def write(work: Path) -> None:
        build(plain_json(path, work), work, source)

    if not (folder / INDEX_METADATA).exists():
        make_folder(folder.parent, INDEX_CACHE_HINT)
        with locked(folder.parent / f"{folder.name}.lock", INDEX_CACHE_HINT):  # one of several processes scans the file
            if not (folder / INDEX_METADATA).exists():
                logger.info("indexing %s (once)", path)
                _build_atomically(folder, write)
    if not _is_whole(folder):
        logger.warning("the index of %s is damaged: building it again", path)
        with locked(folder.parent / f"{folder.name}.lock", INDEX_CACHE_HINT):
            if not _is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                _build_atomically(folder, write)
    return load(folder)


@dataclass(frozen=True)
class CachedIndex:
    """The index of an annotation file, for other machines that see the file; a `requirements.BuiltOnce`."""

    path: Path
    version: str
    source: dict[str, Any]

    def is_here(self, verify: bool) -> bool:
        folder, source = _index_folder(self.path, self.version)
        if source != self.source:
            raise PicsError(f"{self.path}: is another file than on the machine that the command was started on")
        return (folder / INDEX_METADATA).exists() and (not verify or _is_whole(folder))

    def pack(self) -> Iterator[tuple[str, bytes]]:
        for part in sorted(_index_folder(self.path, self.version)[0].iterdir()):
            with part.open("rb") as file:
                for data in chain([b""], iter(partial(file.read, _PIECE), b"")):  # an empty file is a file
                    yield part.name, data

    def unpack(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        folder, _ = _index_folder(self.path, self.version)

        def write(work: Path) -> None:
            for name, data in pieces:
                with (work / name).open("ab") as file:
                    file.write(data)

        make_folder(folder.parent, INDEX_CACHE_HINT)
        with locked(folder.parent / f"{folder.name}.lock", INDEX_CACHE_HINT):
            if not (folder / INDEX_METADATA).exists() or not _is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                _build_atomically(folder, write)


_opened: dict[Path, CachedIndex] = {}


def opened_indexes(paths: Iterable[Path]) -> list[CachedIndex]:
    """The indexes of annotation files that this process has opened, as many of the files as have one."""
    return [_opened[path] for path in paths if path in _opened]


def _index_folder(path: Path, version: str) -> tuple[Path, dict[str, Any]]:
    """Where a file's index lies on this machine, and the file's fingerprint."""
    try:
        state, source = path.stat(), fingerprint(path)
    except OSError as error:
        raise read_error(path, error) from None
    key = json.dumps([version, str(path.resolve()), state.st_mtime_ns, source])
    return cache_folder() / "index" / hashlib.sha256(key.encode()).hexdigest()[:32], source


def _is_whole(folder: Path) -> bool:
    """Whether an index is as it was built; workers leave that to the process that started them."""
    if is_worker():
        return True
    try:
        recorded = load_json((folder / _CHECKSUMS).read_bytes())
        return bool(INDEX_METADATA in recorded and recorded == {name: file_crc32(folder / name) for name in recorded})
    except (OSError, ValueError, TypeError):
        return False


def plain_json(path: Path, folder: Path) -> Path:
    """The text of a json file as UTF-8: the file itself, or what is unpacked and decoded into the folder of its index.

    Raises:
        PicsError: it cannot be read, unpacked or decoded.
    """
    plain = folder / _PLAIN_TEXT
    if plain.exists():
        return plain
    try:
        path = local_file(path)
        with open_file(path) as file:
            head = file.read(4)
        encoding = json.detect_encoding(head)
        if encoding.startswith("utf-8") and not head.startswith(_GZIP):
            return path
        with gzip.open(path) if head.startswith(_GZIP) else open_file(path) as source, plain.open("wb") as target:
            _decode(source.read, target, _SMALL + _MAX_EXPANSION * path.stat().st_size)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        plain.unlink(missing_ok=True)
        what = "gzip" if head.startswith(_GZIP) else encoding
        raise PicsError(f"{path}: cannot be read as {what}: {error}", "save it as UTF-8, not compressed") from None
    return plain


def _decode(read: Callable[[int], bytes], target: IO[bytes], limit: int) -> None:
    decoder = None
    for data in iter(partial(read, _CHUNK), b""):
        if decoder is None:
            decoder = codecs.getincrementaldecoder(json.detect_encoding(data[:4]))()
        target.write(decoder.decode(data).encode())
        if target.tell() > limit:
            raise ValueError(f"it unpacks to more than {limit >> 20:,} MB")
    if decoder is not None:
        target.write(decoder.decode(b"", final=True).encode())


def _build_atomically(folder: Path, build: Callable[[Path], None]) -> None:
    """Build in a temporary folder that gets its name when it is complete."""
    make_folder(folder.parent, INDEX_CACHE_HINT)
    _remove_abandoned(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=f".building-{socket.gethostname()}-{os.getpid()}-", dir=folder.parent))
    collecting = gc.isenabled()
    gc.disable()  # millions of short-lived records: the collector would cost more than the decoding
    try:
        build(work)
        (work / _CHECKSUMS).write_text(json.dumps({path.name: file_crc32(path) for path in sorted(work.iterdir())}))
        for part in work.iterdir():
            with part.open("r+b") as file:
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
        if (match := work_name.fullmatch(path.name)) and not process_runs(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)
