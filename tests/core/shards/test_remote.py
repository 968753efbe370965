"""Shards from elsewhere, by a real server on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import itertools
import multiprocessing
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from helpers.making import build_folder
from helpers.object_store import DROP, ObjectStore
from helpers.training_shards import STILL, mixed, write_shard
from pics_cli.core.loading.dataset import TrainingDataset
from pics_cli.core.recipes.training_sections import DataSettings, TrainingSet
from pics_cli.core.runtime import http_client, remote_path
from pics_cli.core.runtime.files import cache_folder
from pics_cli.core.shards import remote
from pics_cli.core.shards.remote import fetch_shard, list_remote_shards
from pics_cli.core.shards.shard_paths import MissingShardsError, list_shards
from pics_cli.core.shards.shard_sets import SHARD_WINDOW, ShardSet, resolve_shard_sets
from pics_cli.core.shards.tar_index import index_shard
from pics_cli.errors import PicsError


class Server:
    """Serves a folder; `asked` counts requests by path, `faults` come once each: a code, or bytes to stop after."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.faults = folder, Counter[str](), dict[str, list[int]]()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(False)

            def do_GET(self) -> None:
                self.answer(True)

            def answer(self, body: bool) -> None:
                outer.asked[f"{self.command} {self.path}"] += 1
                fault = outer.faults[self.path].pop(0) if outer.faults.get(self.path) else 0
                path = outer.folder / self.path.lstrip("/")
                if 400 <= fault < 600 or not path.is_file():
                    self.send_error(fault or 404)
                    return
                data = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    self.wfile.write(data[: fault or len(data)])

            def log_message(self, *_: object) -> None:
                """Nothing to the terminal."""

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build_folder("synth", None, folder / "train/Synth", limit=6, source__size=64, shards__size=2)
    return folder


@pytest.fixture
def server(built: Path, tmp_path: Path) -> Iterator[Server]:
    found = Server(shutil.copytree(built, tmp_path / "served"))
    yield found
    found.http.shutdown()
    found.http.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and no patience."""
    monkeypatch.setenv("PICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(http_client, "TIMEOUT", 5.0)
    return tmp_path / "cache/shards"


@contextlib.contextmanager
def answering(status: int, headers: dict[str, str], body: Iterable[bytes] = ()) -> Iterator[str]:
    """Address of a server that says this to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                for block in body:
                    self.wfile.write(block)

        def log_message(self, *_: object) -> None:
            """Nothing to the terminal."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://localhost:1/00000.tar", "redirects to localhost, which is not public"),
        ("http://169.254.169.254/latest/meta-data", "redirects to 169.254.169.254, which is not public"),
        ("http://10.0.0.1/00000.tar", "not public"),
        ("http://[::1]:80/00000.tar", "redirects to ::1, which is not public"),
        ("http://2130706433/", "not public"),
        ("http://router/", "not public"),
        ("ftp://example.org/00000.tar", "from http to ftp"),
        ("file:///etc/passwd", "cannot be fetched"),
        ("http://[bad/", "cannot be fetched"),
    ],
)
def test_redirects_to_this_network_are_not_followed(location: str, words: str) -> None:
    with answering(302, {"Location": location}) as address, pytest.raises(PicsError, match="cannot be fetched") as told:
        fetch_shard(f"{address}/00000.tar", 1)
    assert words in told.value.message


def test_redirects_of_the_same_host_and_allowed_ones(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    there = f"{server.address}/train/Synth/00000.tar"
    with answering(302, {"Location": there}) as address:
        assert fetch_shard(f"{address}/00000.tar", 1).is_file()
        other = f"{address.replace('127.0.0.1', 'localhost')}/00001.tar"
        with pytest.raises(PicsError, match="which is not public"):
            fetch_shard(other, 1)
        monkeypatch.setenv(http_client.ANY_REDIRECT, "any")
        assert fetch_shard(other, 1).is_file()


@pytest.mark.parametrize("length", ["abc", "-5", "1e3", "९", ""])
def test_a_length_that_is_none(length: str) -> None:
    with (
        answering(200, {"Content-Length": length.encode().decode("latin-1")}, [b"x" * 1024]) as address,
        pytest.raises(PicsError, match="Content-Length"),
    ):
        fetch_shard(f"{address}/00000.tar", 1)


def test_answers_without_an_end(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(remote, "_MAX_MANIFEST", 3e6)
    monkeypatch.setattr(remote, "_MAX_SHARD", 3e6)
    with answering(200, {}, itertools.repeat(bytes(1 << 16))) as address:
        with pytest.raises(PicsError, match=r"manifest\.json: cannot be fetched: the server sends more than 3 MB"):
            list_remote_shards(f"{address}/set")
        with pytest.raises(PicsError, match="the server sends more than 3 MB"):
            fetch_shard(f"{address}/00000.tar", 1e-9)
    assert not list(cache.glob("*.t*"))


def found(shards: str, split: str = "train", **options: bool) -> list[ShardSet]:
    return resolve_shard_sets(DataSettings(root="nowhere", sets={"A": TrainingSet(shards=shards)}), split, **options)  # type: ignore[arg-type]


def test_a_folder_with_a_manifest(server: Server, built: Path) -> None:
    """The manifest names the shards; only the first is fetched to be looked at; the same contents as local ones."""
    (one,) = found(f"{server.address}/train/Synth/")
    assert one.sources == [f"{server.address}/train/Synth/0000{i}.tar" for i in range(3)]
    assert (one.counts, one.remote) == ([2, 2, 2], True)
    assert server.asked == {"GET /train/Synth/manifest.json": 1, "GET /train/Synth/00000.tar": 1}
    local = resolve_shard_sets(DataSettings(root=str(built), sets={"A": TrainingSet(shards="train/Synth")}), "train")
    assert one.contents_sha256 == local[0].contents_sha256


def test_files_with_and_without_a_manifest(server: Server) -> None:
    names = f"{server.address}/train/Synth/{{00000..00002}}.tar"
    assert found(names)[0].counts == [2, 2, 2]
    assert sum(server.asked[f"GET /train/Synth/0000{i}.tar"] for i in range(3)) == 1
    (server.folder / "train/Synth/manifest.json").unlink()
    assert found(names)[0].counts == [2, 2, 2]
    # The first was looked at before, as what the manifest said of it: without one it may be another.
    assert [server.asked[f"GET /train/Synth/0000{i}.tar"] for i in range(3)] == [2, 1, 1]
    for fetched in (cache_folder() / "shards").glob("*.tar"):
        fetched.unlink()
    assert found(names)[0].counts == [2, 2, 2]  # counted once; the first is fetched to be looked at
    assert [server.asked[f"GET /train/Synth/0000{i}.tar"] for i in range(3)] == [3, 1, 1]


def test_not_there(server: Server) -> None:
    for shards in ("x/{split}/Synth", "{split}/Gone/{00..02}.tar"):
        with pytest.raises(PicsError, match="not found") as caught:
            found(f"{server.address}/{shards}")
        assert "--allow-missing" in str(caught.value.hint)
        assert found(f"{server.address}/{shards}", "val") == []
    assert found(f"{server.address}/{{split}}/Synth", "val") == []
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(PicsError, match="cannot be fetched: connection refused"):
        found(f"{server.address}/train/Synth")


def test_the_shards_are_read_like_local_ones(server: Server, built: Path) -> None:
    """Every sample, also when the cache has room for one shard only."""
    remote_set = found(f"{server.address}/train/Synth")
    local_set = resolve_shard_sets(
        DataSettings(root=str(built), sets={"A": TrainingSet(shards="train/Synth")}), "train"
    )
    options = {"augment": STILL, "seed": 0, "size": 64, "reference_size": 56, "hint": "background"}
    for cache_gb in (1e-9, 50.0):
        order = mixed(remote_set, windows=[SHARD_WINDOW])
        far, near = (TrainingDataset(sets, order, cache_gb=cache_gb, **options) for sets in (remote_set, local_set))  # type: ignore[arg-type]
        for position in range(6):
            assert far[position]["key"] == near[position]["key"]
            assert (far[position]["references"] == near[position]["references"]).all()
    assert sum(server.asked.values()) > 1 + 3 + 3


def test_fetched_once(server: Server, cache: Path) -> None:
    source = f"{server.address}/train/Synth/00001.tar"
    path = fetch_shard(source, 1)
    state = path.stat()
    assert path.read_bytes() == (server.folder / "train/Synth/00001.tar").read_bytes()
    time.sleep(0.01)
    assert fetch_shard(source, 1) == path
    assert server.asked["GET /train/Synth/00001.tar"] == 1
    assert path.stat().st_mtime_ns == state.st_mtime_ns
    assert path.stat().st_atime_ns > state.st_atime_ns
    path.unlink()
    assert fetch_shard(source, 1) == path
    assert server.asked["GET /train/Synth/00001.tar"] == 2
    assert not [*cache.glob("*.tmp")]


def test_several_processes_fetch_once(server: Server) -> None:
    source = f"{server.address}/train/Synth/00001.tar"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fetch_shard, args=(source, 1)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert server.asked["GET /train/Synth/00001.tar"] == 1


@pytest.mark.parametrize("faults", [[503, 500], [20_000, 503], [700, 20_000]])
def test_faults_that_pass(server: Server, cache: Path, faults: list[int]) -> None:
    """A busy server; a connection that is cut in the middle of the file."""
    server.faults["/train/Synth/00000.tar"] = faults
    path = fetch_shard(f"{server.address}/train/Synth/00000.tar", 1)
    assert len(index_shard(path)) == 3
    assert server.asked["GET /train/Synth/00000.tar"] == 3
    assert [*cache.glob("*.tar")] == [path]


@pytest.mark.parametrize(("fault", "words", "tries"), [
    (404, "404 not found", 1), (403, "403 forbidden", 1), (503, "503 service unavailable", 3),
    (20_000, "the connection ended after 20,000 of ", 3),
])  # fmt: skip
def test_faults_that_stay(server: Server, cache: Path, fault: int, words: str, tries: int) -> None:
    server.faults["/train/Synth/00000.tar"] = [fault] * 9
    with pytest.raises(PicsError, match=f"00000.tar: cannot be fetched: {words}"):
        fetch_shard(f"{server.address}/train/Synth/00000.tar", 1)
    assert server.asked["GET /train/Synth/00000.tar"] == tries
    assert not [*cache.glob("*.tar"), *cache.glob("*.tmp")]


def test_what_is_no_shard_or_another_one(server: Server, cache: Path) -> None:
    (server.folder / "page.tar").write_text("<html>please log in</html>" * 100)
    with pytest.raises(PicsError, match=r"page\.tar: cannot be fetched: truncated or no tar file"):
        fetch_shard(f"{server.address}/page.tar", 1)
    with pytest.raises(PicsError, match=r"sha256 is [0-9a-f]{12}…, its manifest\.json says 000000000000"):
        fetch_shard(f"{server.address}/train/Synth/00000.tar", 1, "0" * 64)
    assert not [*cache.glob("*.tar")]


def test_a_manifest_that_is_none(server: Server) -> None:
    (server.folder / "train/Synth/manifest.json").write_text("{}")
    with pytest.raises(PicsError, match=r"http.*manifest\.json: is no manifest of pics"):
        list_remote_shards(f"{server.address}/train/Synth")
    (server.folder / "train/Synth/manifest.json").write_text('{"complete": false}')
    with pytest.raises(PicsError, match="its build was not finished"):
        list_remote_shards(f"{server.address}/train/Synth")


def test_the_least_used_are_removed(tmp_path: Path, cache: Path) -> None:
    """Above the limit, the newest stays in any case; what is used again counts as new."""
    sources = [f"pipe:cat {write_shard(tmp_path / f'{i}.tar', [i])}" for i in range(4)]
    size = (tmp_path / "0.tar").stat().st_size
    room = 2.5 * size / 1e9
    paths = [fetch_shard(source, room) for source in sources[:2]]
    os.utime(paths[0], ns=(time.time_ns() + 10**9, paths[0].stat().st_mtime_ns))
    paths.append(fetch_shard(sources[2], room))
    assert [path.exists() for path in paths] == [True, False, True]
    paths.append(fetch_shard(sources[3], 1e-9))
    assert [path.exists() for path in paths] == [False, False, False, True]


def test_what_a_killed_process_left_is_removed(server: Server, cache: Path) -> None:
    path = fetch_shard(f"{server.address}/train/Synth/00000.tar", 1)
    path.unlink()
    left = path.with_name(f"{path.name}.12345.tmp")
    left.write_bytes(b"half")
    fetch_shard(f"{server.address}/train/Synth/00000.tar", 1)
    assert not left.exists()


def test_the_lock_goes_with_its_process(server: Server, cache: Path) -> None:
    """A lock file that is left behind holds nobody up; one that is held does."""
    path = fetch_shard(f"{server.address}/train/Synth/00000.tar", 1)
    lock = path.with_suffix(".lock")
    assert lock.exists()
    path.unlink()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = threading.Thread(target=fetch_shard, args=(f"{server.address}/train/Synth/00000.tar", 1))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(5)
    assert path.exists()


def test_commands(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tar", range(2))
    assert fetch_shard(f"pipe:cat {path}", 1).read_bytes() == path.read_bytes()
    with pytest.raises(PicsError, match=r"^pipe:cat nothing.*: cannot be fetched: the command ended with code 1: cat:"):
        fetch_shard("pipe:cat nothing-here", 1)
    with pytest.raises(PicsError, match="truncated or no tar file"):
        fetch_shard("pipe:echo hello", 1)
    with pytest.raises(PicsError, match="truncated"):
        fetch_shard(f"pipe:head -c 2000 {path}", 1)


@pytest.fixture
def stored(s3: ObjectStore, built: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of shards in a store of its own."""
    monkeypatch.setattr(remote_path, "PAUSES", (0.0,))
    folder = f"{s3.new_bucket()}/Synth"
    s3.put(built / "train/Synth", folder)
    return folder


def test_shards_of_a_store_are_those_of_the_disk(stored: str, built: Path, s3: ObjectStore) -> None:
    """By folder, range and pattern; each is fetched once, though a connection drops."""
    local = list_shards(str(built / "train/Synth"))
    for name in (stored, f"{stored}/", f"{stored}/{{00000..00002}}.tar", f"{stored}/*.tar", f"{stored}/0000?.tar"):
        shards = list_shards(name)
        assert [str(shard.source) for shard in shards] == [f"{stored}/{number:05d}.tar" for number in range(3)]
        assert [shard[1:] for shard in shards] == [shard[1:] for shard in local]
    assert not [request for request in s3.asked if request.endswith(".tar") and request.startswith("GET")]
    s3.faults["GET .*00001.tar"] = [DROP, 503]
    for ours, theirs in zip([*shards, *shards], [*local, *local], strict=True):
        assert fetch_shard(str(ours.source), 1, ours.sha256).read_bytes() == Path(theirs.source).read_bytes()
    assert s3.asked[f"GET /{stored.removeprefix('s3://')}/00000.tar"] == 1


def test_shards_of_a_store_that_cannot_be_had(stored: str, built: Path, s3: ObjectStore) -> None:
    first, second = (f"{stored}/{number:05d}.tar" for number in (0, 1))
    with pytest.raises(PicsError, match=f"{first}: cannot be fetched: sha256 is .*, its manifest.json says 0000"):
        fetch_shard(first, 1, "0" * 64)
    s3.faults["(GET|HEAD) .*00000.tar"] = [403, None]
    with pytest.raises(PicsError, match=f"{first}: no permission to read there"):
        fetch_shard(first, 1)
    with pytest.raises(PicsError, match=f"{stored}/7.tar: cannot be fetched: no such file"):
        fetch_shard(f"{stored}/7.tar", 1)
    s3.put(built / "train/Synth/00000.tar", second)
    with pytest.raises(PicsError, match=f"{second}: .* bytes, manifest.json says"):
        list_shards(stored)
    s3.remove(second)
    with pytest.raises(PicsError, match=f"{second}: no such file; 1 of 3 shards in manifest.json are missing"):
        list_shards(stored)
    with pytest.raises(MissingShardsError, match="no such folder"):
        list_shards(f"{stored}/none")
