"""A build that is killed, stopped or limited ends byte-identical to one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.infer_command import typed
from helpers.processes import start

ARGUMENTS = ["--area-ratio", "0.05", "--shard-size", "4", "--seed", "3"]


def words(raw: Path, out: Path, workers: int, *more: str) -> list[str]:
    base = ["build-shards", "lvis", "--raw", str(raw), "--out", str(out)]
    return [*base, "--workers", str(workers), *ARGUMENTS, *more]


def command(raw: Path, out: Path, workers: int) -> list[str]:
    return [sys.executable, "-m", "pics_cli", *words(raw, out, workers)]


def build(raw: Path, out: Path, workers: int, *more: str) -> None:
    done = typed(*words(raw, out, workers, *more))
    assert done.exit_code == 0, done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def finished(out: Path) -> bool:
    manifest = out / "manifest.json"
    return manifest.exists() and json.loads(manifest.read_text())["complete"]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(scope="module")
def whole(lvis_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted build by one worker leaves."""
    out = tmp_path_factory.mktemp("whole")
    build(lvis_raw, out, 1)
    found = contents(out)
    assert len([name for name in found if name.endswith(".tar")]) >= 8
    assert not [name for name in found if name.startswith(".") or name.endswith(".tmp")]
    return found


def test_workers_do_not_change_the_bytes(lvis_raw: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    """Three; two are `test_ignored_interrupts_stay_ignored`."""
    build(lvis_raw, tmp_path / "out", 3)
    assert contents(tmp_path / "out") == whole


def holds_lock(out: Path, pid: int | None) -> bool:
    lock = out / ".lock"
    return lock.exists() and f'"pid": {pid}' in lock.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(1, 4), (2, 4), (3, 4)])
def test_killed_at_random_moments(
    lvis_raw: Path, tmp_path: Path, whole: dict[str, bytes], workers: int, kills: int
) -> None:
    """A dozen times over the three worker counts: kill -9, run again; whenever a run gets through, compare.

    Before the first shard is begun, in a shard, between two, and in the last ones.
    """
    rng = random.Random(workers)
    killed = between_shards = rounds = 0
    while killed < kills:
        out = tmp_path / f"out{rounds}"
        run = start(tmp_path, *words(lvis_raw, out, workers))
        # Somewhere between the first shard begun and the last one finished, however fast the machine is.
        shards = rng.randrange(len(whole) // 2)
        while len(list(out.glob("*.stats.json"))) < shards and run.runs():
            time.sleep(0.002)
        while not holds_lock(out, run.process.pid) and run.runs():
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        run.process.kill()
        code = run.code()
        if finished(out):
            rounds += 1
        else:
            assert code == -signal.SIGKILL
            killed += 1
            between_shards += bool(list(out.glob("*.stats.json")))
    assert between_shards >= 2, "too few kills fell between two shards for the test to show anything"
    for out in sorted(tmp_path.glob("out*")):
        build(lvis_raw, out, 1)
        assert contents(out) == whole


def test_workers_end_with_their_parent(lvis_raw: Path, tmp_path: Path) -> None:
    with subprocess.Popen(command(lvis_raw, tmp_path / "out", 2), stderr=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 20
        while not (tmp_path / "out" / "00000.stats.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        workers = children(run.pid)
        run.kill()
    assert len(workers) >= 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def heeding_interrupts() -> None:
    """A script's background jobs ignore SIGINT, and so would whatever a test suite running there starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(
    lvis_raw: Path, tmp_path: Path, whole: dict[str, bytes], workers: int, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    how: Any = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True, "preexec_fn": heeding_interrupts}
    with subprocess.Popen(command(lvis_raw, out, workers), **how) as run:
        while not (out / "00000.stats.json").exists() and run.poll() is None:
            time.sleep(0.005)
        # A terminal's Ctrl-C reaches the workers as well, a batch system's SIGTERM the one process.
        (os.killpg if number == signal.SIGINT else os.kill)(run.pid, number)
        _, text = run.communicate(timeout=60)
    assert run.returncode == code
    assert "stopped: what is finished is kept; the same command resumes" in text
    assert "Traceback" not in text
    assert not list(out.glob("*.tmp"))
    assert not (out / ".lock").exists()
    build(lvis_raw, out, 1)
    assert contents(out) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_ignored_interrupts_stay_ignored(lvis_raw: Path, tmp_path: Path, whole: dict[str, bytes], workers: int) -> None:
    out = tmp_path / "out"
    ignoring: Any = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    with subprocess.Popen(command(lvis_raw, out, workers), stderr=subprocess.DEVNULL, **ignoring) as run:
        while run.poll() is None:
            os.kill(run.pid, signal.SIGINT)
            time.sleep(0.02)
    assert run.returncode == 0
    assert contents(out) == whole


def test_limit_and_workers_are_not_part_of_a_build(lvis_raw: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    """A trial run over a few pictures grows into the whole, its short last shard included."""
    out = tmp_path / "out"
    build(lvis_raw, out, 1, "--limit", "10")
    first = json.loads((out / "manifest.json").read_text())
    assert (first["pictures"], first["of_pictures"]) == (10, 48)
    assert first["samples"] + sum(first["skipped"].values()) == 10
    build(lvis_raw, out, 2, "--limit", "23")
    build(lvis_raw, out, 1)
    assert contents(out) == whole
    build(lvis_raw, out, 1, "--limit", "5")  # contained in what is there
    assert contents(out) == whole


def test_a_limit_does_not_cut_an_unfinished_build_short(lvis_raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(lvis_raw, out, 1)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    before = (out / "00000.tar").stat().st_mtime_ns
    done = typed(*words(lvis_raw, out, 1, "--limit", "2"))
    assert done.exit_code == 2
    assert "holds an unfinished build of 48 pictures, more than --limit 2 asks for" in done.stderr
    assert (out / "00000.tar").stat().st_mtime_ns == before
    build(lvis_raw, out, 1)
    assert (out / "00000.tar").stat().st_mtime_ns == before


@pytest.mark.parametrize("lost", ["00003.tar", "00003.stats.json", "manifest.json:complete"])
def test_what_is_lost_is_built_again(lvis_raw: Path, tmp_path: Path, whole: dict[str, bytes], lost: str) -> None:
    out = tmp_path / "out"
    build(lvis_raw, out, 1)
    untouched = (out / "00002.tar").stat().st_mtime_ns
    if lost.startswith("manifest"):
        manifest = json.loads((out / "manifest.json").read_text())
        (out / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    else:
        (out / lost).unlink()
    build(lvis_raw, out, 1)
    assert contents(out) == whole
    assert (out / "00002.tar").stat().st_mtime_ns == untouched
