"""`pics cache` and `pics env`: what is shown, what is removed and what never is."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import jsonschema
import pytest
import typer

from pics_cli import __version__
from pics_cli.commands.results import schema
from pics_cli.core.runtime import caches
from pics_cli.core.runtime.caches import clean_cache, list_cache, using_cache
from pics_cli.errors import PicsError

NAME = "0123456789abcdef0123456789abcdef"
OURS = (
    f"index/{NAME}/spans.npy", f"offsets/{NAME}.offsets", f"shards/{NAME}.tar", f"shards/{NAME}.samples",
    f"fetched/{NAME}/a/b.bin", "models/mine-0123456789ab/pics.json", f"models/{NAME}.json", f"models/{NAME}.npy",
)  # fmt: skip
NOT_OURS = ("hashes.json", "index/notes.txt", f"index/{NAME}.lock", "models/my_model/pics.json", "thesis/chapter_1.tex")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of every kind, and files of the user's in it; what was fetched is ten days old."""
    folder = tmp_path / "cache"
    for name in (*OURS, *NOT_OURS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(100))
    (folder / f"fetched/{'f' * 32}").symlink_to(folder / "thesis")
    old = time.time() - 10 * 86400
    os.utime(folder / f"fetched/{NAME}", (old, old))
    monkeypatch.setenv("PICS_CACHE", str(folder))
    monkeypatch.setattr(caches, "hub_cache", lambda: tmp_path / "hub")
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_ls(pics, cache: Path) -> None:
    record = json.loads(pics("cache", "ls", "--json").stdout)
    jsonschema.validate(record, schema("cache"))
    assert {kind["kind"]: (kind["entries"], kind["bytes"]) for kind in record["kinds"]} == {
        "index": (1, 100), "offsets": (1, 100), "shards": (2, 200), "fetched": (1, 100), "models": (3, 300)
    }  # fmt: skip
    assert 9.9 < record["kinds"][3]["oldest_days"] < 10.1
    text = pics("cache", "ls").stdout
    assert text.startswith(f"{cache}: 800 bytes\n")
    assert files(cache) == {*OURS, *NOT_OURS}


def test_clean_removes_what_is_ours_and_nothing_else(pics, cache: Path) -> None:
    done = pics("cache", "clean", "--yes")
    assert (done.returncode, ", removed" in done.stdout) == (0, True), done.stderr
    assert files(cache) == set(NOT_OURS)
    again = json.loads(pics("cache", "clean", "--json").stdout)
    assert (again["removed"], sum(kind["entries"] for kind in again["kinds"])) == (False, 0)


def test_clean_of_what_is_old(pics, cache: Path) -> None:
    assert pics("cache", "clean", "--yes", "--older-than", "5").returncode == 0
    assert {*OURS, *NOT_OURS} - files(cache) == {f"fetched/{NAME}/a/b.bin"}


def test_clean_asks(pics, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pics_cli.commands import cache as command

    for answer, left in ((False, {*OURS, *NOT_OURS}), (True, set(NOT_OURS))):
        monkeypatch.setattr(command, "_is_asked", lambda: True)
        monkeypatch.setattr(typer, "confirm", lambda *_words, answer=answer, **_options: answer)
        assert pics("cache", "clean").returncode == 0
        assert files(cache) == left


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clean"], "error: pics cache clean: would remove 8 entries, 800 bytes, and nobody is there to be asked"),
        (["ls", "--yes"], "error: --yes goes with clean"),
        (["lss"], "error: Invalid value for 'action': "),
        (["clean", "--older-than", "-1"], "error: Invalid value for '--older-than'"),
        (["clean", "--older-than", "week"], "error: Invalid value for '--older-than'"),
    ],
)
def test_errors(pics, cache: Path, words: list[str], message: str) -> None:
    done = pics("cache", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)
    assert files(cache) == {*OURS, *NOT_OURS}


def test_nothing_is_removed_while_it_is_used(pics, cache: Path) -> None:
    with using_cache():
        done = pics("cache", "clean", "--yes")
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {cache}: is in use (pid {os.getpid()} on ")
        assert {*OURS, *NOT_OURS} < files(cache)
    clean_cache(list_cache())
    assert files(cache) == set(NOT_OURS)


def test_users_that_are_gone_and_those_of_other_machines(cache: Path) -> None:
    """The first one's file lock has ended with it; the other one's file says when it was alive."""
    users = cache / "in_use"
    users.mkdir()
    (users / "gone").write_text(json.dumps({"pid": 1, "renewed": time.time()}))
    clean_cache(())
    assert not (users / "gone").exists()
    for age, holds in ((30, True), (3600, False)):
        (users / "far").write_text(json.dumps({"pid": 1, "host": "far-away", "renewed": time.time() - age}))
        if holds:
            with pytest.raises(PicsError, match=r"is in use \(pid 1 on far-away\)"):
                clean_cache(())
        else:
            clean_cache(())


def test_a_cache_that_is_no_folder_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PICS_CACHE", str(tmp_path / "file"))
    with using_cache():
        assert list_cache() == []


def test_env(pics, cache: Path) -> None:
    done = pics("env", "--json")
    record = json.loads(done.stdout)
    jsonschema.validate(record, schema("env"))
    assert (record["pics"], record["cache"]) == (__version__, str(cache))
    assert record["cache_bytes"] == 100 * len(files(cache))
    assert record["devices"][-1]["name"] == "cpu"
    assert record["devices"][-1]["precision"] == "float32"
    assert "pip" not in done.stdout
    shown = pics("env").stdout
    assert str(record["libraries"]["torch"]) in shown


def test_env_without_torch(pics, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from pics_cli.commands import env

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("torch", "starlette") else find(name)
    )
    version = env._version
    monkeypatch.setattr(env, "_version", lambda name: None if name == "torch" else version(name))
    monkeypatch.setattr(env, "_torch_devices", lambda: pytest.fail("torch was asked"))
    record = json.loads(pics("env", "--json").stdout)
    jsonschema.validate(record, schema("env"))
    assert (record["libraries"]["torch"], record["devices"], record["cuda"]) == (None, [], None)
    assert "starlette" in record["missing_extras"]["ui"]
    text = pics("env").stdout
    assert "not installed" in text
    assert "pip install 'pics-cli[" in text
