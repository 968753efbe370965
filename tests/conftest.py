"""Shared fixtures: a private cache, the real files, small raw datasets and the command itself."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo_data import make_lvis, make_objects365
from helpers.infer_command import typed
from helpers.object_store import ObjectStore, object_store

# One worker a core already: threads that wait for each other would slow everything down several times. Set before torch
# is loaded; processes that the tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As `pics train` has it before it loads torch, for the processes that are forked from one that has torch already.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


# Nothing is thrown away while libraries are loaded and tests are collected.
gc.disable()


def pytest_collection_finish() -> None:
    """Leave what the libraries hold out of garbage collections: one looks at a million objects, and there are many."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Libraries complain at the end of what could not be freed."""
    gc.unfreeze()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes must not land in the developer's own cache, nor be found there."""
    before = os.environ.get("PICS_CACHE")
    os.environ["PICS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["PICS_CACHE"]
    else:
        os.environ["PICS_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What syncing guards against is a power cut, which no test can cut; processes that tests start do sync."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of small real files; licences keep it out of the repository."""
    folder = os.environ.get("PICS_SHARED_DATA")
    if not folder:
        pytest.skip("PICS_SHARED_DATA is not set: the small real files are not part of the repository")
    return Path(folder)


@pytest.fixture(scope="session")
def lvis_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw folder in LVIS v1's layout, 48 pictures."""
    out = tmp_path_factory.mktemp("lvis")
    make_lvis(out, 48, seed=1)
    return out


@pytest.fixture(scope="session")
def objects365_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw folder of pictures and label files in Objects365's layout, 30 pictures."""
    out = tmp_path_factory.mktemp("objects365")
    make_objects365(out, 30, seed=1)
    return out


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of a few megabytes, untrained."""
    from pics_cli.core.model.tiny_model import tiny_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ObjectStore]:
    """An S3 server on this machine, which the environment leads to from now on."""
    with object_store() as store:
        yield store


@pytest.fixture
def s3(s3_server: ObjectStore) -> Iterator[ObjectStore]:
    """The server, without requests and faults of other tests; `s3.new_bucket()` gives each a place of its own."""
    s3_server.asked.clear()
    yield s3_server
    s3_server.faults.clear()


@pytest.fixture
def pics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in a folder of its own and return code and texts.

    In this process, where a new interpreter's seconds of imports are saved; in one of its own where options of
    `subprocess.run` are given.
    """

    def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        if options:
            command = [sys.executable, "-m", "pics_cli", *words]
            return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, **options)
        monkeypatch.chdir(tmp_path)
        done = typed(*words)
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    return run
