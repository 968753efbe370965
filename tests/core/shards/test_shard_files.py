"""Hostile and damaged tar files: told as what they are, at once, without reading what they only claim to hold."""

from __future__ import annotations

import io
import resource
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pics_cli.core.datasets.check_shards import check_folder
from pics_cli.core.shards.shard_files import read_shard
from pics_cli.core.shards.shard_paths import list_shards
from pics_cli.core.shards.tar_index import index_shard
from pics_cli.errors import BadSample, PicsError


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def checked(block: bytearray) -> bytes:
    """A header whose checksum is right again."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def edited(at: int, value: bytes, size: int = 3) -> bytes:
    block = bytearray(header("a.bg.jpg", size))
    block[at : at + len(value)] = value
    return checked(block) + b"abc".ljust(512, b"\0") + bytes(1024)


def pax(records: bytes, claims: int | None = None) -> bytes:
    body = records.ljust(-(-len(records) // 512) * 512, b"\0")
    return (
        header("pax", claims or len(records), tarfile.XHDTYPE) + body + header("a.bg.jpg", 3) + b"abc".ljust(512, b"\0")
        + bytes(1024)
    )  # fmt: skip


def record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n"
    length = len(text) + 2
    return f"{length if length >= 10 else length - 1}{text}".encode()


def sparse() -> bytes:
    block = bytearray(header("a.bg.jpg", 512, tarfile.GNUTYPE_SPARSE))
    block[386:398], block[398:410] = b"%011o\0" % (5 << 30), b"%011o\0" % 512
    block[483:495] = b"%011o\0" % ((5 << 30) + 512)
    return checked(block) + bytes(512) + bytes(1024)


HOSTILE: dict[str, bytes] = {
    "text as a size": edited(124, b"12345678xyz\0"),
    "a size below zero": edited(124, b"\xff" * 12),
    "a size beyond the file": edited(124, b"%011o\0" % (5 << 30)),
    "a size in 256 digits": edited(124, b"\x80" + b"\x7f" * 11),
    "text as a time": edited(136, b"nine o'clock"),
    "sparse": sparse(),
    "sparse by pax": pax(record("GNU.sparse.map", "0,512") + record("GNU.sparse.size", "5368709120")),
    "sparse map of words": pax(record("GNU.sparse.map", "a,b,c")),
    "sparse 1.0": pax(record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")),
    "pax size below zero": pax(record("size", "-1024")),
    "pax size of words": pax(record("size", "many")),
    "pax size beyond the file": pax(record("size", str(1 << 62))),
    "pax claims much": pax(record("path", "a.bg.jpg"), claims=1 << 33),
    "long name claims much": header("x", 1 << 33, tarfile.GNUTYPE_LONGNAME) + bytes(1024),
    "nested headers": b"".join(header("x", 0, tarfile.XHDTYPE) for _ in range(3000)) + bytes(1024),
}


ODD = {
    "a time out of range": edited(136, b"\x80" + b"\xff" * 11),
    "pax bytes": pax(b"20 path=\xff\xfe\n"),
    "hdrcharset": pax(record("hdrcharset", "BINARY") + b"15 path=\xff\xfe\xff\n"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_headers_hide_no_member(tmp_path: Path, name: str) -> None:
    path = tmp_path / "00000.tar"
    path.write_bytes(ODD[name])
    assert [list(members.values()) for _, members in read_shard(path)] == [[b"abc"]]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("read", [lambda path: list(read_shard(path)), index_shard])
def test_hostile_headers(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    path = tmp_path / "00000.tar"
    path.write_bytes(HOSTILE[name])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises((PicsError, BadSample)) as error:
        read(path)
    assert str(path) in str(error.value) or isinstance(error.value, BadSample)
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize("name", ["text as a size", "sparse", "sparse by pax", "pax size below zero", "nested headers"])
def test_a_hostile_shard_is_named_and_the_others_are_checked(tmp_path: Path, name: str) -> None:
    for i in range(3):
        with tarfile.open(tmp_path / f"0000{i}.tar", "w") as tar:
            info = tarfile.TarInfo(f"k{i}.txt")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    (tmp_path / "00001.tar").write_bytes(HOSTILE[name])
    reports = list(check_folder(tmp_path, ThreadPoolExecutor(1)))
    assert [report.errors[0].reason for report in reports[:3]] == [
        "missing_member", "unreadable_shard", "missing_member",
    ]  # fmt: skip
    assert "00001.tar" in reports[1].errors[0].detail


def test_a_sample_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "00000.tar"
    with path.open("wb") as file:
        file.write(header("a.bg.jpg", 3 << 29))
        file.seek(512 + (3 << 29))
        file.write(bytes(1024))
    with pytest.raises(BadSample, match="a holds 1,611 MB, at most 537 MB are read"):
        list(read_shard(path))


def test_zeros_behind_the_end_are_not_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "00000.tar"
    with path.open("wb") as file:
        file.write(header("a.txt", 0))
        file.truncate(1 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert [key for key, _ in read_shard(path)] == ["a"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    with pytest.raises(PicsError, match="truncated or damaged"):
        list(read_shard(path))


def test_what_macos_leaves_beside_shards_is_none(tmp_path: Path) -> None:
    for name in ("00000.tar", "._00000.tar", ".hidden.tar"):
        (tmp_path / name).write_bytes(bytes(1024))
    for names in (str(tmp_path), f"{tmp_path}/*.tar"):
        assert [Path(shard.source).name for shard in list_shards(names)] == ["00000.tar"]
