"""Workers that read samples: interrupts, ends, and how each is told."""

from __future__ import annotations

import faulthandler
import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from helpers.processes import LOADED, log_level_here
from helpers.training_shards import local_set, mixed, write_shard
from pics_cli.core.loading.dataset import TrainingDataset
from pics_cli.core.loading.loader import Batch, batch_positions, build_dataloader, explain_worker_exit
from pics_cli.core.recipes.training_sections import AugmentSettings
from pics_cli.errors import PicsError


def who(_: np.random.Generator) -> dict[str, npt.NDArray[np.int64]]:
    """Drawn by the worker: which process it is, and how many threads it may use."""
    return {"pid": np.asarray(os.getpid()), "threads": np.array([cv2.getNumThreads(), torch.get_num_threads()])}


def loader_of(
    folder: Path, workers: int, noise: Callable[[np.random.Generator], Any] = who, start: str | None = None
) -> Generator[Batch, None, None]:
    sets = [local_set("A", [write_shard(folder / "a.tar", range(8))])]
    data = TrainingDataset(sets, mixed(sets), augment=AugmentSettings(), seed=0, size=64, reference_size=56,
                           hint="background", noise_sampler=noise)  # fmt: skip
    loader = build_dataloader(data, batch_positions(0, 0, 1, 2), workers)
    loader.multiprocessing_context = start
    return iter(loader)


def pids(batch: Batch) -> set[int]:
    return set(batch["pid"].tolist())


def wait_until(holds: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def runs(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_signals_to_the_group_leave_the_workers(tmp_path: Path) -> None:
    """An interrupt, or a job that is asked to end: the samples of the step that is under way still come."""
    with closing(loader_of(tmp_path, 2)) as loader:
        workers = pids(next(loader)) | pids(next(loader))
        assert len(workers) == 2
        for name in ("INT", "TERM"):
            subprocess.run(["/bin/sh", "-c", f"kill -{name} {' '.join(map(str, workers))}"], check=True)
        for batch in itertools.islice(loader, 20):
            assert pids(batch) <= workers
    assert wait_until(lambda: not any(runs(pid) for pid in workers))


def test_the_main_process_can_end_them(tmp_path: Path) -> None:
    """As it does with workers that are still busy when it ends."""
    with closing(loader_of(tmp_path, 1)) as loader:
        (pid,) = pids(next(loader))
        os.kill(pid, signal.SIGTERM)
        assert wait_until(lambda: not runs(pid))


def test_closing_ends_the_workers(tmp_path: Path) -> None:
    loader = loader_of(tmp_path, 2)
    workers = pids(next(loader)) | pids(next(loader))
    loader.close()
    assert wait_until(lambda: not any(runs(pid) for pid in workers))
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_told_in_one_line(tmp_path: Path) -> None:
    """As the kernel does where memory runs out."""
    with closing(loader_of(tmp_path, 2)) as loader:
        (pid,) = pids(next(loader))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(PicsError, match=r"^a process that reads samples died; often the machine ran out") as told:
            list(itertools.islice(loader, 50))
        assert told.value.exit_code == 1
        assert "data.workers" in str(told.value.hint)


def test_the_handler_of_other_children_stays(tmp_path: Path) -> None:
    """PyTorch's own raises the end of a worker in whatever line the main thread is."""
    before = signal.getsignal(signal.SIGCHLD)
    with closing(loader_of(tmp_path, 1)) as loader:
        next(loader)
        assert signal.getsignal(signal.SIGCHLD) == before


def end_by(number: int) -> None:
    """Without the traceback that pytest would print of it."""
    faulthandler.disable()
    signal.raise_signal(number)


def test_words_of_errors() -> None:
    context = multiprocessing.get_context("fork")
    for number, words in ((signal.SIGBUS, "ran out of shared memory"), (signal.SIGKILL, "out of memory")):
        process = context.Process(target=end_by, args=(number,))
        process.start()
        assert words in str(explain_worker_exit(ConnectionResetError(), [process]))
    assert explain_worker_exit(RuntimeError("Caught ValueError in DataLoader worker process 0.")) is None
    assert "died" in str(explain_worker_exit(RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")))
    assert str(explain_worker_exit(RuntimeError("Too many open files. Communication with …"))) == "too many open files"


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
sys.path += [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[2])!r}]
from test_loader import loader_of, pids
loader = loader_of(Path({str(tmp_path)!r}), 3)
print(*(pid for _ in range(3) for pid in pids(next(loader))), flush=True)
time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert len(set(workers)) == 3
        assert all(map(runs, workers))
        parent.kill()
    assert wait_until(lambda: not any(map(runs, workers)), 4)


def test_workers_compute_alone(tmp_path: Path) -> None:
    """With one thread: the workers are the parallelism. What this process uses stays as it was."""
    before = cv2.getNumThreads()
    with closing(loader_of(tmp_path, 1)) as loader:
        assert next(loader)["threads"].tolist() == [[1, 1]] * 2
    assert cv2.getNumThreads() == before


@pytest.mark.parametrize("start", ["fork", "forkserver"])  # what Linux has up to Python 3.13, and from 3.14 on
@pytest.mark.parametrize("level", [logging.DEBUG, logging.ERROR])
def test_verbose_and_quiet_reach_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, level: int
) -> None:
    monkeypatch.setattr(logging.getLogger("pics_cli"), "handlers", [logging.NullHandler()])
    monkeypatch.setattr(logging.getLogger("pics_cli"), "level", level)
    multiprocessing.get_context("forkserver").set_forkserver_preload(LOADED)
    with closing(loader_of(tmp_path, 1, log_level_here, start)) as loader:
        assert set(next(loader)["level"].tolist()) == {level}
