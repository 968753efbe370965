"""The door to storage: addresses, files of an S3 server as files, what it refuses, and leases on its folders."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from helpers.object_store import DROP, ObjectStore
from pics_cli.core.runtime import locks
from pics_cli.core.runtime.files import (
    AtomicFile,
    file_sha256,
    fingerprint,
    make_folder,
    open_file,
    read_file,
    write_json,
)
from pics_cli.core.runtime.locks import InUse, single_writer
from pics_cli.core.runtime.remote_path import RemotePath
from pics_cli.core.runtime.storage import (
    Entry,
    borrowed_file,
    is_remote,
    list_folder,
    local_file,
    local_folder,
    location,
)
from pics_cli.errors import PicsError


@pytest.fixture
def folder(s3: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a new bucket; the cache is a new one, and tries follow each other at once."""
    from pics_cli.core.runtime import remote_path

    monkeypatch.setenv("PICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_path, "PAUSES", (0.0, 0.0))
    return location(s3.new_bucket() + "/a")


def forget_connections() -> None:
    """The next request reads the environment again."""
    import fsspec

    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_store_has_the_methods_of_a_folder(s3: ObjectStore, folder: Path, tmp_path: Path) -> None:
    make_folder(folder)
    with AtomicFile(folder / "b.bin") as file:
        file.write(data := os.urandom(200_000))
        assert not (folder / "b.bin").exists()
    write_json(folder / "c/d.json", {"x": 1})
    with AtomicFile(folder / "empty"):
        pass
    assert read_file(folder / "empty") == b""
    (folder / "empty").unlink()
    (tmp_path / "b.bin").write_bytes(data)
    assert fingerprint(folder / "b.bin") == fingerprint(tmp_path / "b.bin")
    assert file_sha256(folder / "b.bin") == file.sha256 == hashlib.sha256(data).hexdigest()
    assert read_file(folder / "b.bin") == data
    with open_file(folder / "b.bin") as opened:
        assert (opened.seek(-7, os.SEEK_END), opened.read(), opened.seek(5), opened.read(3)) == (
            199_993, data[-7:], 5, data[5:8],
        )  # fmt: skip
    assert list_folder(folder) == {"b.bin": Entry(False, 200_000), "c": Entry(True, 0)}
    assert [path.name for path in sorted(folder.iterdir())] == ["b.bin", "c"]
    assert [str(path) for path in folder.rglob("*.json")] == [f"{folder}/c/d.json"]
    assert pickle.loads(pickle.dumps(folder / "c")) == location(f"{folder}/c/") == folder / "c"  # noqa: S301
    assert (is_remote(folder), is_remote(tmp_path), folder.is_dir(), (folder / "b.bin").is_file()) == (1, 0, 1, 1)
    for missing in (folder / "e", folder / "b.bin" / "e"):
        with pytest.raises(FileNotFoundError):
            read_file(missing)
    with pytest.raises(FileNotFoundError):
        list_folder(folder / "e")
    (folder / "b.bin").unlink()
    (folder / "b.bin").unlink(missing_ok=True)
    assert list(s3.files(str(folder))) == ["c/d.json"]


def test_real_files_are_fetched_once_and_again_when_they_change(s3: ObjectStore, folder: Path) -> None:
    write_json(folder / "a.json", [1])
    write_json(folder / "b/c.json", [2])
    copy = local_file(folder / "a.json")
    assert copy.name == "a.json"
    assert copy == local_file(folder / "a.json")
    name = str(folder).removeprefix("s3:/")
    assert s3.asked[f"GET {name}/a.json"] == 1
    write_json(folder / "a.json", [3])
    assert json.loads(local_file(folder / "a.json").read_text()) == [3]
    whole = local_folder(folder)
    assert {str(path.relative_to(whole)) for path in whole.rglob("*.json")} == {"a.json", "b/c.json"}
    newest = local_file(folder / "b/c.json", cache_gb=1e-9)
    assert (newest.exists(), whole.exists(), copy.exists()) == (True, False, False)
    with borrowed_file(folder / "a.json") as borrowed:
        assert json.loads(borrowed.read_text()) == [3]
    assert not borrowed.exists()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (507, "the store is full, or refuses to take more"),
        (403, "no permission to write there"),
        (DROP, "cannot be written: "),
    ],
)
def test_what_a_store_refuses_is_one_line(s3: ObjectStore, folder: Path, fault: int, text: str) -> None:
    s3.faults["PUT .*"] = [fault, None]
    with pytest.raises(PicsError, match=text) as caught:
        write_json(folder / "a.json", {})
    assert (caught.value.message.startswith(f"{folder}/a.json: "), "\n" in caught.value.message) == (True, False)
    s3.faults.clear()
    assert not s3.files(str(folder))


def test_a_connection_that_drops_is_tried_again(s3: ObjectStore, folder: Path) -> None:
    s3.faults["PUT .*"] = [DROP]
    write_json(folder / "a.json", {"x": 1})
    s3.faults["GET .*a.json"] = [DROP]
    assert json.loads(read_file(folder / "a.json")) == {"x": 1}


def test_credentials_and_buckets_that_are_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PicsError, match=r"s3://none/a.json: there is no such bucket"):
        write_json(location("s3://none/a.json"), {})
    forget_connections()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(PicsError, match="credentials are missing or wrong: unable to locate credentials"):
        (folder / "a.json").exists()
    forget_connections()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo://b/x", "unknown scheme foo://"),
        ("s3:/b/x", "no address"),
        ("s3://", "names no host or bucket"),
        ("sftp://me:secret@h/x", "sftp://h: has a password in its address"),
        ("simplecache::s3://b/x", "no address"),
    ],
)
def test_addresses_that_are_none(text: str, message: str) -> None:
    with pytest.raises(PicsError, match=message) as caught:
        location(text)
    assert "secret" not in caught.value.text


class _Web(SimpleHTTPRequestHandler):
    """Of the working directory; /away leads to another host."""

    def send_head(self) -> Any:
        if self.path != "/away":
            return super().send_head()
        self.send_response(302)
        self.send_header("Location", "http://169.254.1.1/a.json")
        self.end_headers()
        return None

    def log_message(self, *_: object) -> None:
        """Nothing to the terminal."""


def test_files_of_a_web_server(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the client that follows no redirects into this network, whatever fsspec has."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_bytes(b"[1, 2]")
    (tmp_path / "empty").touch()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Web) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        web = location(f"http://127.0.0.1:{server.server_port}")
        assert str(web / "a.json") == f"http://127.0.0.1:{server.server_port}/a.json"
        assert (read_file(web / "a.json"), read_file(web / "empty")) == (b"[1, 2]", b"")
        assert local_file(web / "a.json").read_bytes() == b"[1, 2]"
        with open_file(web / "a.json") as opened:
            assert (opened.seek(3), opened.read()) == (3, b" 2]")
        assert [(web / name).is_file() for name in ("a.json", "none")] == [True, False]
        for act, text in (
            (lambda: list_folder(web), "cannot be listed"),
            (lambda: write_json(web / "b.json", {}), "nothing is written by http"),
            (lambda: read_file(web / "away"), "the server redirects to 169.254.1.1, which is not public"),
        ):
            with pytest.raises(PicsError, match=text):
                act()
        server.shutdown()


def test_local_paths_stay_paths(tmp_path: Path) -> None:
    for text in ("a/b", "/a", "C:/x", "file:///a"):
        assert type(location(text)) is type(tmp_path)
    assert local_file(tmp_path / "a") == tmp_path / "a"
    assert list_folder(tmp_path) == {}


def test_a_folder_of_a_store_has_one_writer(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with single_writer(folder):
        with pytest.raises(InUse, match=f"another writer is at work here \\(pid {os.getpid()} on"):
            single_writer(folder).__enter__()
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert not folder.exists()
    lock, other = folder / ".lock", {"host": "elsewhere", "pid": 1, "token": "x"}
    write_json(lock, other | {"renewed": time.time() - 300})
    with pytest.raises(InUse, match="pid 1 on elsewhere"):
        single_writer(folder).__enter__()
    with pytest.raises(FileExistsError):  # as of two that asked at once, and found none
        cast(RemotePath, lock).create(b"{}")
    write_json(lock, other | {"renewed": time.time() - 1200})
    with single_writer(folder):
        assert "taken over: pid 1 on elsewhere has not been heard of for 20 minutes" in caplog.text
        assert json.loads(lock.read_bytes())["pid"] == os.getpid()


@pytest.mark.parametrize("remote", [False, True])
def test_a_lease_is_renewed_and_its_loss_is_said(
    folder: Path, tmp_path: Path, remote: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "_HEARTBEAT", 0.05)
    monkeypatch.setattr(locks, "_heartbeats", locks._Heartbeats())
    where = folder if remote else tmp_path
    lock = where / ".lock"

    def lose() -> None:
        with single_writer(where):
            first = json.loads(lock.read_bytes())["renewed"]
            while json.loads(lock.read_bytes())["renewed"] == first:
                time.sleep(0.05)
            other = json.dumps({"host": "elsewhere", "pid": 1, "token": "x", "renewed": time.time()}).encode()
            with locks._heartbeats._guard:
                lock.write_bytes(other)
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        lose()
    assert "another writer has taken over this folder" in caplog.text
    assert json.loads(lock.read_bytes())["pid"] == 1  # the other one's is left to it


class _Plain:
    """A store that knows neither conditional writes nor how to remove one file, as some of fsspec's do not."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def pipe_file(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise NotImplementedError
        self.files[path] = data

    def rm_file(self, _: str) -> None:
        raise NotImplementedError

    def rm(self, path: str) -> None:
        del self.files[path]

    def exists(self, path: str) -> bool:
        return path in self.files


def test_stores_that_cannot_do_all_that_others_can(monkeypatch: pytest.MonkeyPatch) -> None:
    store = _Plain({"there": b"old"})
    new, there = (cast(RemotePath, location(f"s3://bucket/{name}")) for name in ("new", "there"))
    monkeypatch.setattr(RemotePath, "ask", lambda self, request, writing=False: request(store, self.name))  # noqa: ARG005
    new.create(b"data")
    with pytest.raises(FileExistsError):
        there.create(b"data")
    assert store.files == {"there": b"old", "new": b"data"}
    there.unlink()
    assert store.files == {"new": b"data"}
