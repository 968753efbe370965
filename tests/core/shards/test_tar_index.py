"""Offsets of samples: any sample by one read, the same as when the shard is read through."""

from __future__ import annotations

import io
import os
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.training_shards import write_shard
from pics_cli.core.shards import tar_index
from pics_cli.core.shards.shard_files import ShardWriter, open_tar, read_shard
from pics_cli.core.shards.tar_index import index_shard, is_indexed, read_sample
from pics_cli.errors import BadSample, PicsError


def all_samples(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    """Every sample of a shard by its offsets."""
    index = index_shard(path)
    spans = zip(index[:-1].tolist(), index[1:].tolist(), strict=True)
    return [(key, dict(members)) for key, members in (read_sample(path, *span) for span in spans)]


def write_tar(path: Path, entries: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.text("ab/.x1é", min_size=1, max_size=130), st.binary(max_size=1500)), max_size=12),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_as_read_through(tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes]], form: int) -> None:
    """Whatever the names and their lengths, GNU or PAX headers: what `read_shard` gives, or its fault for one run."""
    named = [(f"{number:02d}{name.strip('/')}", data) for number, (name, data) in enumerate(entries)]
    named = [(name, data) for name, data in named if ".." not in name.split("/")]
    path = write_tar(tmp_path_factory.mktemp("tar") / "a.tar", named, form)
    assert all_samples(path) == [(key, dict(members)) for key, members in read_shard(path)]


def test_runs_folders_and_links(tmp_path: Path) -> None:
    """A run is a sample wherever its members lie; what is no file belongs to none."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        kinds = {"d": tarfile.DIRTYPE, "d/x.link": tarfile.SYMTYPE}
        for name in ("d", "d/x.a", "d/x.link", "d/x.b", "y.a", "d/x.a"):
            info = tarfile.TarInfo(name)
            info.type, info.size = kinds.get(name, tarfile.REGTYPE), 0 if name in kinds else 3
            tar.addfile(info, io.BytesIO(b"abc"))
    assert [(key, sorted(found)) for key, found in all_samples(tmp_path / "a.tar")] == [
        ("d/x", ["a", "b"]), ("y", ["a"]), ("d/x", ["a"])]  # fmt: skip
    assert [key for key, _ in read_shard(tmp_path / "a.tar")] == ["d/x", "y", "d/x"]


def test_a_bad_run_leaves_the_others(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.x", b"1"), ("b.x", b"2"), ("b.x", b"3"), ("../c.x", b"4"), ("d.x", b"5")])
    index = index_shard(path).tolist()
    assert len(index) == 5
    found = []
    for span in pairwise(index):
        try:
            found.append(read_sample(path, *span)[0])
        except BadSample as error:
            found.append(error.reason)
    assert found == ["a", "duplicate_member", "bad_name", "d"]


def test_the_index_is_kept_for_this_very_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_shard(tmp_path / "a.tar", range(3))
    assert not is_indexed(path)
    index = index_shard(path).tolist()
    assert is_indexed(path)
    monkeypatch.setattr(tar_index, "open_tar", lambda _: pytest.fail("scanned again"))
    assert index_shard(path).tolist() == index
    write_shard(path, range(4))
    assert not is_indexed(path)
    monkeypatch.setattr(tar_index, "open_tar", open_tar)
    assert len(index_shard(path)) == 5
    os.utime(path, (1, 1))
    assert not is_indexed(path)


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    """Whatever bit of it has flipped, and wherever it was cut."""
    path = write_shard(tmp_path / "a.tar", range(2))
    index = index_shard(path).tolist()
    cached = tar_index._cache_path(path)
    whole = cached.read_bytes()
    flipped = [whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(len(whole))]
    for damage in (*flipped, *(whole[:at] for at in range(len(whole))), b"", bytes(12)):
        cached.write_bytes(damage)
        assert index_shard(path).tolist() == index
        assert cached.read_bytes() == whole


@pytest.mark.parametrize("keep", [0.5, 0.9, 1])
def test_truncated(tmp_path: Path, keep: float) -> None:
    path = write_shard(tmp_path / "a.tar", range(3))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)] if keep < 1 else data[: index_shard(path)[-1]])
    with pytest.raises(PicsError, match=r"a\.tar: truncated"):
        index_shard(path)


@pytest.mark.parametrize("data", [b"", b"x" * 2000, b"\x1f\x8b" * 600])
def test_no_tar(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(PicsError, match="truncated or no tar file"):
        index_shard(tmp_path / "a.tar")


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(PicsError, match="cannot read: no such file"):
        index_shard(tmp_path / "a.tar")
    with pytest.raises(FileNotFoundError):
        read_sample(tmp_path / "a.tar", 0, 512)


def test_changed_while_read(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tar", range(3))
    start, middle, stop = index_shard(path)[:3].tolist()
    with pytest.raises(PicsError, match="changed while it is read"):
        read_sample(path, start + 512, middle)
    with pytest.raises(PicsError, match="changed while it is read"):
        read_sample(path, start, stop)
    path.write_bytes(path.read_bytes()[: middle + 100])
    assert read_sample(path, start, middle)[0] == "0000"
    with pytest.raises(PicsError, match="ends at byte"):
        read_sample(path, middle, stop)


def test_one_read_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_shard(tmp_path / "a.tar", range(5))
    index = index_shard(path).tolist()
    reads = []
    read_bytes = tar_index.read_bytes

    def recorded(*span: Any) -> Any:
        reads.append(span)
        return read_bytes(*span)

    monkeypatch.setattr(tar_index, "read_bytes", recorded)
    assert read_sample(path, *index[2:4])[0] == "0002"
    assert reads == [(path, *index[2:4])]


def test_an_empty_shard(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.tar"):
        pass
    assert index_shard(tmp_path / "a.tar").tolist() == [0]


def test_the_cache_folder_must_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_shard(tmp_path / "a.tar", range(1))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PICS_CACHE", str(tmp_path / "file"))
    with pytest.raises(PicsError, match="cannot write") as caught:
        index_shard(path)
    assert "PICS_CACHE" in str(caught.value.hint)
