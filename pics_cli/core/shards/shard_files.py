"""Shard files: tar files of samples in WebDataset's layout, written and read; a stats file marks a finished one.

The webdataset package is not used to read them: it takes a damaged header, or the end of a file that was cut between
two members, for the end of the archive, and silently loses the samples behind it. Here that is an error.
"""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pics_cli.core.runtime.files import AtomicFile, load_json, read_file
from pics_cli.core.runtime.storage import borrowed_file, list_folder, map_files, remove_files
from pics_cli.core.shards.layouts import Members
from pics_cli.errors import BadSample, PicsError, read_error

REBUILD_HINT = "build or download it again"
SHARD_NAME = re.compile(r"[0-9]{5,}\.tar")
_STATS_NAME = re.compile(r"([0-9]{5,})\.stats\.json")
_FOLDER_FILE = re.compile(r"([0-9]{5,}\.(tar|stats\.json)|manifest\.json)(\.[0-9]+\.tmp)?")


def shard_path(folder: Path, block: int) -> Path:
    """`00007.tar`, the published organisation."""
    return folder / f"{block:05d}.tar"


def stats_path(folder: Path, block: int) -> Path:
    """`00007.stats.json`: its presence says that the block is finished."""
    return folder / f"{block:05d}.stats.json"


# No header of a tar that anybody writes is longer; a sample beyond this would not fit into memory with its pixels.
_MAX_HEADER, MAX_SAMPLE = 1 << 20, 1 << 29
_LONG_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


class _Member(tarfile.TarInfo):
    """Refuses headers that make tarfile read what a few bytes claim, before it does."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in _LONG_HEADERS and info.size > _MAX_HEADER):
            raise tarfile.ReadError(f"a header claims {info.size:,} bytes")
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(f"member {info.name!r} is sparse")
        return info


class ShardWriter:
    """Writes samples into a shard, which appears under its name only when complete.

    Headers are fixed (no time, no owner), so that the bytes are a function of the samples.
    """

    def __init__(self, path: Path) -> None:
        self._file = AtomicFile(path)
        self._keys: set[str] = set()

    @property
    def samples(self) -> int:
        """Number of samples added."""
        return len(self._keys)

    def __enter__(self) -> ShardWriter:
        self._file.__enter__()
        return self

    def add(self, key: str, members: Members) -> None:
        """Append a sample; `key` must be escaped, see `escape_key`.

        Raises:
            BadSample: `duplicate_key`.
        """
        if key in self._keys:
            raise BadSample("duplicate_key", f"a sample called {key} is in this shard already")
        self._keys.add(key)
        blocks = []
        for extension, data in members.items():
            info = tarfile.TarInfo(f"{key}.{extension}")
            info.size = len(data)
            info.mode = 0o644
            blocks += [info.tobuf(tarfile.PAX_FORMAT), data, bytes(-len(data) % tarfile.BLOCKSIZE)]
        self._file.write(b"".join(blocks))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                self._file.write(bytes(2 * tarfile.BLOCKSIZE))  # an archive's end
                self._file.write(bytes(-self._file.bytes % tarfile.RECORDSIZE))
        except PicsError as failure:
            self._file.__exit__(type(failure), failure, None)
            raise
        self._file.__exit__(kind, error, trace)

    @property
    def summary(self) -> dict[str, Any]:
        """Samples, bytes and sha256 of the finished shard."""
        return {"samples": self.samples, "bytes": self._file.bytes, "sha256": self._file.sha256}


def read_shard(path: Path, name: Path | None = None) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """Yield (key, members by extension) for each run of tar members with one key, in file order.

    Members of a sample may stand in any order; GNU and PAX headers are both read.

    Args:
        path: of the shard; one of a store is fetched for this.
        name: what it is called in messages; None: its path.

    Raises:
        PicsError: the file is no tar or is truncated.
        BadSample: `duplicate_member`, `bad_name` or `too_large`, naming it: the samples after it cannot be separated.
    """
    name = name or path
    try:
        with borrowed_file(path) as file, open_tar(file, name) as tar:
            for key, infos in group_members(tar):
                yield key, read_members(tar, key, infos)
    except OSError as error:
        raise read_error(name, error) from None


@contextlib.contextmanager
def open_tar(path: Path, name: Path | None = None) -> Iterator[tarfile.TarFile]:
    """Open a shard to read all of its members in the `with` block, at whose end the archive must end, too.

    Args:
        path: of a file on this machine.
        name: what it is called in messages; None: its path.

    Raises:
        PicsError: the file is no tar or is truncated.
    """
    name = name or path
    try:
        with _damage_is_told():
            tar = tarfile.open(path, "r:", tarinfo=_Member)  # noqa: SIM115  # closed below
        with tar:
            yield tar
            _check_end(path, name, tar.offset)
    except OSError as error:
        raise read_error(name, error) from None
    except tarfile.TarError as error:
        raise PicsError(f"{name}: truncated or no tar file: {error}", REBUILD_HINT) from None


def open_tar_bytes(data: bytes) -> tarfile.TarFile:
    """Open members that were read into memory.

    Raises:
        tarfile.TarError: they do not begin with a header.
    """
    with _damage_is_told():
        return tarfile.open(fileobj=io.BytesIO(data), mode="r:", tarinfo=_Member)


@contextlib.contextmanager
def _damage_is_told() -> Iterator[None]:
    """On damaged headers tarfile raises what int(), float(), decoding and recursion raise: all is a TarError here."""
    try:
        yield
    except (OSError, tarfile.TarError, MemoryError):
        raise
    except Exception as error:
        raise tarfile.ReadError(f"damaged header: {error or type(error).__name__}") from None


def _next_member(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    with _damage_is_told():
        info = tar.next()
    tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all
    if info is not None and info.issparse():
        raise tarfile.ReadError(f"member {info.name!r} is sparse")
    if info is not None and (info.size < 0 or tar.offset < info.offset_data):  # would come back to it for ever
        raise tarfile.ReadError(f"member {info.name!r} claims {info.size:,} bytes")
    return info


def group_members(tar: tarfile.TarFile) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """Yield (key, members) for each run of tar members with one key; only headers are read."""
    key, infos = "", list[tarfile.TarInfo]()
    while (info := _next_member(tar)) is not None:
        if not info.isfile():
            continue
        name = split_member_name(info.name)[0]
        if name != key:
            if infos:
                yield key, infos
            key, infos = name, []
        infos.append(info)
    if infos:
        yield key, infos


def read_members(tar: tarfile.TarFile, key: str, infos: Sequence[tarfile.TarInfo]) -> Mapping[str, bytes]:
    """Contents of the members of a run, by extension.

    Raises:
        BadSample: `duplicate_member`, `bad_name` or `too_large`.
    """
    if (size := sum(info.size for info in infos)) > MAX_SAMPLE:
        raise BadSample("too_large", f"{key} holds {size / 1e6:,.0f} MB, at most {MAX_SAMPLE / 1e6:,.0f} MB are read")
    if key.startswith("/") or ".." in key.split("/"):
        raise BadSample("bad_name", f"{infos[0].name!r} would lie outside the folder it is unpacked to")
    members = dict[str, bytes]()
    for info in infos:
        extension = split_member_name(info.name)[1]
        if extension in members:
            raise BadSample("duplicate_member", f"{key} holds {extension} twice")
        file = tar.extractfile(info)
        members[extension] = file.read() if file else b""
    return members


def _check_end(path: Path, name: Path, offset: int) -> None:
    """tarfile takes a damaged header for the end of the archive; the real end is two blocks of zeros."""
    found, zero = 0, bytes(1 << 16)
    with path.open("rb") as file:
        file.seek(offset)
        while (block := file.read(len(zero))) and zero.startswith(block):
            found += len(block)
    if found < 2 * tarfile.BLOCKSIZE or block:
        raise PicsError(f"{name}: truncated or damaged: no archive header at byte {offset:,}", REBUILD_HINT)


def split_member_name(name: str) -> tuple[str, str]:
    """Member name to (key, extension), at the first dot of the file name, as webdataset does."""
    name = name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", extension


def read_stats(folder: Path, block: int, sizes: Mapping[str, int] | None = None) -> dict[str, Any] | None:
    """Stats of a finished block whose shard exists in full size; None where it has to be built.

    Args:
        folder, block: of the shard.
        sizes: of the folder's files by name, see `file_sizes`, where somebody has listed them.
    """
    if sizes is not None and stats_path(folder, block).name not in sizes:
        return None
    try:
        stats: dict[str, Any] = load_json(read_file(stats_path(folder, block)))
        shard = shard_path(folder, block)
        if stats["bytes"] is None:
            return stats
        whole = (shard.stat().st_size if sizes is None else sizes.get(shard.name)) == stats["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stats if whole else None


def read_all_stats(folder: Path) -> dict[int, dict[str, Any]]:
    """Stats of all finished blocks by their numbers, see `read_stats`; the folder is listed once."""
    sizes = file_sizes(folder)
    numbers = [int(match[1]) for name in sizes if (match := _STATS_NAME.fullmatch(name))]
    paths = [stats_path(folder, number) for number in numbers]
    found = map_files(lambda path: read_stats(folder, int(path.name.partition(".")[0]), sizes), paths)
    return {number: stats for number, stats in zip(numbers, found, strict=True) if stats is not None}


def shard_folder_files(folder: Path) -> list[Path]:
    """The files of a folder of shards by their names: shards, stats, manifest and their temporary forms."""
    return sorted(folder / name for name in file_sizes(folder) if _FOLDER_FILE.fullmatch(name))


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of the files of a folder by name, from one listing."""
    return {name: entry.size for name, entry in list_folder(folder).items() if not entry.is_dir}


def remove_temporary_files(folder: Path) -> None:
    """Delete what an interrupted writer left behind. Only the holder of the folder's lock may."""
    remove_files(path for path in shard_folder_files(folder) if path.suffix == ".tmp")
