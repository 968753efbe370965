"""Jobs on a Ray cluster of three nodes on this machine: same bytes as here, whatever is lost on the way."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.composites import composed, make_sample
from helpers.detection import make_dataset, save_tiny
from helpers.infer_command import typed
from helpers.ray_cluster import RayCluster
from pics_cli.core.runtime import ray_connection, ray_engine
from pics_cli.core.runtime.engines import Engine, PictureCounter, count_picture
from pics_cli.core.runtime.open_engine import open_engine
from pics_cli.core.runtime.requirements import Requirements
from pics_cli.errors import BadSample, PicsError

pytest.importorskip("ray")
BUILD = ("build-shards", "lvis", "--area-ratio", "0.001", "--shard-size", "4")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """Three nodes. Its tests come in the order of this file: some leave it with fewer."""
    with RayCluster() as cluster:
        before = os.environ.get("RAY_ADDRESS")
        os.environ["RAY_ADDRESS"] = cluster.address
        yield cluster
        os.environ.pop("RAY_ADDRESS") if before is None else os.environ.update(RAY_ADDRESS=before)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def shards(lvis_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a local build makes."""
    folder = tmp_path_factory.mktemp("local") / "out"
    assert typed(*BUILD, "--raw", str(lvis_raw), "--out", str(folder), "--workers", "1").exit_code == 0
    return files(folder)


def when(ready: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Act, beside the test, as soon as something is so."""

    def watch() -> None:
        while not ready():
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_interrupted_then_a_node_is_lost(
    cluster: RayCluster, lvis_raw: Path, shards: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A build that is interrupted, and goes on with one node less: the same bytes, the annotations indexed once."""
    out = tmp_path / "out"
    words = (*BUILD, "--raw", str(lvis_raw), "--out", str(out), "--engine", "ray")
    command = [sys.executable, "-m", "pics_cli", *words, "--workers", "1"]
    begun = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(list(out.glob("*.stats.json"))) < 2:
        assert begun.poll() is None
        time.sleep(0.01)
    begun.send_signal(signal.SIGINT)
    _, texts = begun.communicate()
    assert begun.returncode == 130, texts
    assert "stopped: what is finished is kept" in texts
    assert not list(out.glob("*.tmp"))
    before = len(list(out.glob("*.stats.json")))
    assert before < 12

    lost = cluster.nodes[1]
    killing = when(lambda: len(list(out.glob("*.stats.json"))) > before, lambda: cluster.kill(lost))
    with caplog.at_level(logging.DEBUG, "pics_cli.core.runtime.ray_engine"):
        done = typed(*words)
    killing.join()
    assert done.exit_code == 0, done.stderr
    assert files(out) == shards
    assert f"{before} shards were there already" in done.stdout
    assert "100% 48/48" in done.stderr
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if line.startswith("copying to node")]) == 3
    assert not [line for line in lines if line.startswith("indexing")]
    assert [line for line in lines if line.startswith("lost") and f"node {lost[:8]}" in line], lines


@pytest.fixture
def engine(cluster: RayCluster) -> Iterator[Engine]:
    """With one worker."""
    with open_engine("ray", 1) as engine:
        yield engine


def test_calls_and_their_ends(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results, errors of several kinds, a worker that is lost once, a block that ends every worker."""
    monkeypatch.setattr(ray_engine, "_MAX_DEATHS", 2)
    counter = PictureCounter()

    def count(pictures: int) -> tuple[int, int]:
        for number in range(pictures):
            count_picture(kept=number % 2 == 0)
        return pictures, os.getpid()

    def fail(error: Exception) -> None:
        raise error

    def end_once(marker: Path) -> int:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    def end(_: None) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    engine._counter = counter  # type: ignore[attr-defined]
    results = [engine.submit(count, number).result(60) for number in (3, 4)]
    assert [pictures for pictures, _ in results] == [3, 4]
    assert results[0][1] == results[1][1], "a process keeps what it has opened"
    assert (counter.done, counter.kept) == (7, 4)
    with pytest.raises(PicsError, match="disk full") as raised:
        engine.submit(fail, PicsError("disk full", "free some space")).result(60)
    assert raised.value.hint == "free some space"
    with pytest.raises(BadSample, match="missing_image"):
        engine.submit(fail, BadSample("missing_image", "x.jpg")).result(60)
    with pytest.raises(ZeroDivisionError):
        engine.submit(fail, ZeroDivisionError()).result(60)
    assert engine.submit(end_once, tmp_path / "marker").result(60) != results[0][1]
    assert f"lost worker {results[0][1]} of node" in caplog.text
    with pytest.raises(PicsError, match="2 workers ended during the same block, the last one on node") as raised:
        engine.submit(end, None).result(60)
    assert raised.value.exit_code == 1
    assert engine.submit(count, 1).result(60)[0] == 1, "the engine goes on"


def test_nodes_that_cannot_do_the_job(cluster: RayCluster, tmp_path: Path) -> None:
    """All of them are told before the work: another version, folders that are not the driver's."""
    # Ray puts the driver's sys.path before the node's own, so that another pics there takes more than a folder.
    installed = "import sys, types\nsys.modules['pics_cli'] = types.ModuleType('pics_cli')\n"
    (tmp_path / "sitecustomize.py").write_text(f"{installed}sys.modules['pics_cli'].__version__ = '0.0.1'\n")
    old = cluster.add(PYTHONPATH=str(tmp_path))
    (tmp_path / "here").mkdir()
    handle = os.open(tmp_path, os.O_RDONLY)  # a name that means something in this process alone
    seen_here = Path(f"/proc/self/fd/{handle}/here")
    needed = Requirements([seen_here], [seen_here], lambda: {"zlib": str(os.getpid())})
    with pytest.raises(PicsError) as raised, open_engine("ray", None, None, needed):
        pass
    os.close(handle)
    cluster.kill(old)
    text = raised.value.message
    assert text.startswith("nodes of the cluster cannot do this job:")
    assert f"node {old[:8]}" in text
    assert "pics 0.0.1 instead of" in text
    for node in cluster.nodes[:2]:
        assert f"node {node[:8]}" in text
    assert f"{seen_here}: " in text
    assert f"instead of {os.getpid()}" in text
    assert "every node needs pics" in str(raised.value.hint)
    assert not list((tmp_path / "here").iterdir())


MODEL = ("--model", "tiny", "--steps", "1")
SCENES = ("--recipe", "synth_bench", "--set", "scenes.size=96", "--limit", "2", "--metrics", "psnr")
JOBS: dict[str, tuple[str, ...]] = {
    "labels": ("annotate", "boxed.yaml", "--raw", "raw", "--sam", "sam", "--out"),
    "pictures": ("infer", "--input", "samples", *MODEL, "--output"),
    "figures": ("eval", *SCENES, *MODEL, "--methods", "parallel,paste", "--output"),
}


@pytest.mark.parametrize("job", JOBS)
def test_jobs_with_a_model(
    cluster: RayCluster,
    job: str,
    tiny_model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Labels, with a node lost on the way, then pixels and figures by the one that is left: those of one process."""
    monkeypatch.chdir(tmp_path)
    Path("tiny").symlink_to(tiny_model)
    make_dataset(Path(), 40)
    save_tiny(Path("sam"))
    for number in range(3):
        make_sample(Path("samples") / str(number), [(20, 16, 70, 66), (50, 30, 104, 88)][: 1 + number % 2])
    lost = cluster.nodes[1] if job == "labels" else ""
    killing = when(lambda: any(Path("ray").glob("*.stats.json")), lambda: cluster.kill(lost)) if lost else None
    for done in (typed(*JOBS[job], "ray", "--engine", "ray"), typed(*JOBS[job], "local")):
        assert done.exit_code == 0, done.stderr
    if killing is not None:
        killing.join()
        assert f"lost node {lost[:8]}" in caplog.text
    if job != "pictures":
        assert files(Path("ray")) == files(Path("local"))
        return
    pictures, expected = composed(Path("ray")), composed(Path("local"))
    assert pictures.keys() == expected.keys()
    assert all((picture == expected[name]).all() for name, picture in pictures.items())


@pytest.mark.usefixtures("cluster")
def test_workers_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are some, or as --device says; no node of this cluster has room for such a worker."""
    monkeypatch.setattr(ray_engine, "_has_gpu", lambda: True)
    for device, cores, text in [
        ("auto", 4, "4 free CPU and 1 free GPU"), ("cuda", 4, "4 free CPU and 1 free GPU"), ("cpu", 2, "2 free CPU"),
    ]:  # fmt: skip
        with open_engine("ray", None, device=device, cpus_per_worker=2, cpus_per_gpu=4) as engine:
            assert isinstance(engine, ray_engine.RayEngine)
            assert engine.cores == cores
            assert engine._resource_text() == text


def test_addresses_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told at once; Ray itself would try for half a minute."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = server.getsockname()[1]
        monkeypatch.setattr(ray_connection, "_SECONDS", 0.5)
        for address, text in [
            ("ray://127.0.0.1:1", "does not answer: connection refused"),
            ("ray://nowhere.invalid:1", "does not answer"),
            (f"ray://127.0.0.1:{silent}", "answers, but not as a server of Ray's clients"),
            ("ray://x", "expected ray://HOST:PORT"),
        ]:
            with pytest.raises(PicsError, match=re.escape(text)), open_engine(address, 1):
                pass
    assert "expected local, ray or ray://HOST:PORT" in typed("build-shards", "synth", "--engine", "spark").stderr
