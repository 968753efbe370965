"""Work by an executor's processes: opened once in each, and the bytes, pixels and figures of one process."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.composites import composed, make_sample
from helpers.detection import make_dataset, save_tiny
from helpers.processes import LOADED
from helpers.trainees import CORRECTING, small
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.evaluation.evaluator import EvaluationJob
from pics_cli.core.evaluation.run import evaluate
from pics_cli.core.inference.inputs import find_folders
from pics_cli.core.inference.plan import InferenceJob
from pics_cli.core.inference.run import infer
from pics_cli.core.inference.sample import CompositeOptions
from pics_cli.core.inference.worker import InferenceProgress
from pics_cli.core.recipes.base import Override
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.recipes.evaluation import load_evaluation
from pics_cli.core.runtime.engines import Engine, local_executor, log_level
from pics_cli.core.runtime.locks import single_writer
from pics_cli.core.runtime.progress import Progress
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.worker_group import OpenEngine, WorkerGroup, in_blocks
from pics_cli.core.segmentation.annotator import AnnotationProgress
from pics_cli.core.segmentation.blocks import AnnotationJob
from pics_cli.core.segmentation.run import annotate
from pics_cli.core.segmentation.sam import find_checkpoint
from pics_cli.errors import PicsError


class TwoProcesses(ProcessPoolExecutor, Engine):
    """They have the libraries when they start."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED)
        super().__init__(2, context, torch.set_num_threads, (1,))

    @property
    def slots(self) -> int:
        return 2


@pytest.fixture(scope="module")
def engine() -> Iterator[OpenEngine]:
    torch.set_num_threads(1)
    with TwoProcesses() as processes:
        yield lambda _requirements: contextlib.nullcontext(processes)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("layout", ["blocks", "published"])
def test_annotate(tmp_path: Path, engine: OpenEngine, layout: Any) -> None:
    """Also where another run has a block, which is left to it, and no lock or temporary file stays."""
    recipe = make_dataset(tmp_path, 7)
    source = DatasetSplit(load_dataset(recipe), "train", tmp_path / "raw")
    sam = str(save_tiny(tmp_path / "sam"))

    def run(name: str, engine: OpenEngine | None, **options: Any) -> Any:
        progress = AnnotationProgress()
        job = AnnotationJob(source, tmp_path / name, sam=sam, device="cpu", dtype="fp32", layout=layout, **options)
        report = annotate(job, Ranks(), progress, engine)
        return report, progress

    (tmp_path / "raw/pictures/p3.jpg").write_bytes(b"no picture")
    run("one", None)
    report, progress = run("two", engine, rows=(0, 2))
    assert (report.segmented, progress.done) == ({"pictures": 2, "boxes": 6}, 2)
    with single_writer(tmp_path / "two" / (".pics" if layout == "published" else ""), ".00002.lock"):
        report, _ = run("two", engine)
        assert report.in_use == [f"block 00002: {report.in_use[0].partition(': ')[2]}"]
    report, progress = run("two", engine)
    assert report.manifest["complete"]
    again = layout == "published"  # whose blocks with a bad picture are made again as a whole
    assert report.segmented == {"pictures": 2 + again, "boxes": 6 + 3 * again}
    assert (progress.done, progress.total, progress.boxes) == (7 + again, 7, 6 + 3 * again)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    _, progress = run("two", engine, overwrite=True)
    assert (progress.done, progress.bad) == (7, 1)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    with pytest.raises(PicsError, match="1 bad pictures, more than --max-bad 0"):
        run("three", engine, max_bad=0)


def test_infer(tmp_path: Path, engine: OpenEngine, tiny_model: Path) -> None:
    """Samples with as many objects go together, in the batches of one process."""
    for number, (name, count) in enumerate({"a": 2, "b": 1, "c": 2, "d": 2, "e": 1, "f": 2}.items()):
        make_sample(tmp_path / "samples" / name, [(20, 16, 70, 66), (50, 30, 104, 88)][:count], seed=number)
    (tmp_path / "samples/f/object_1.png").write_bytes(b"no picture")
    options = CompositeOptions(steps=1)

    def run(name: str, engine: OpenEngine | None) -> Any:
        job = InferenceJob(
            tuple(find_folders(tmp_path / "samples")), tmp_path / name, str(tiny_model), options, num=2,
            batch_size=2, device="cpu", grid=True,
        )  # fmt: skip
        progress = InferenceProgress()
        return infer(job, Ranks(), progress, engine), progress

    (one, mine), (two, theirs) = run("one", None), run("two", engine)
    pictures, others = composed(tmp_path / "one"), composed(tmp_path / "two")
    assert pictures.keys() == others.keys()
    assert all(np.array_equal(picture, others[name]) for name, picture in pictures.items())
    assert contents(tmp_path / "one/grids") == contents(tmp_path / "two/grids")
    for report in (one, two):
        assert (report.written, report.changed, report.reasons) == (10, 0, {"unreadable_image": 1})
    assert (theirs.done, theirs.total) == pytest.approx((mine.done, mine.total))
    assert (theirs.pictures, theirs.total_pictures) == (10, 10)
    assert run("two", engine)[0].written == 0


def test_eval(tmp_path: Path, engine: OpenEngine) -> None:
    folder = tmp_path / "model"
    small(stirred=True, **{**CORRECTING, "hint": "overlay", "fill": 0.8, "steps": 1, "guidance": 1.0}).save_pretrained(
        folder
    )
    values = {
        "scenes.size": 96, "limit": 3, "methods": ["parallel", "paste"], "metrics": ["psnr_region", "identity"],
    }  # fmt: skip
    recipe = load_evaluation("synth_bench", [Override(key, value, "--set") for key, value in values.items()])
    for name, one in (("one", None), ("two", engine)):
        progress = Progress()
        evaluate(EvaluationJob(recipe, tmp_path / name, {"": str(folder)}, device="cpu"), Ranks(), progress, one)
        assert (progress.done, progress.total) == (3, 3)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_weights_that_are_not_the_jobs(tmp_path: Path, engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has another file under the same name."""
    from pics_cli.core.segmentation import run as module

    recipe = make_dataset(tmp_path, 2)
    source = DatasetSplit(load_dataset(recipe), "train", tmp_path / "raw")
    job = AnnotationJob(source, tmp_path / "out", sam=str(save_tiny(tmp_path / "sam")), device="cpu", dtype="fp32")
    monkeypatch.setattr(module, "find_checkpoint", lambda *words: replace(find_checkpoint(*words), sha256="0" * 64))
    with pytest.raises(
        PicsError, match=r"other weights \(sha256 .*\) than those that this job began with \(00000000\)"
    ):
        annotate(job, Ranks(), AnnotationProgress(), engine)
    assert not (tmp_path / "out").exists()


opened: list[str] = []


@contextlib.contextmanager
def open_counted(job: str) -> Iterator[str]:
    opened.append(f"open {job}")
    try:
        yield job
    finally:
        opened.append(f"close {job}")


def count(state: str, items: Sequence[int], progress: Progress) -> tuple[str, list[int], int]:
    if 13 in items:
        raise PicsError("thirteen")
    progress.done += len(items)
    return state, list(items), os.getpid()


def test_opened_once() -> None:
    """Until another job or an error; reports come in the order of the blocks."""
    opened.clear()
    with local_executor(1) as serial:
        group = WorkerGroup(Ranks(), serial)
        progress, reports = Progress(), list[Any]()
        with group.open(open_counted, "a") as work:
            blocks = in_blocks([1, 2, 3, 5, 7], 2, lambda item: item % 2)
            assert blocks == [[1], [2], [3, 5], [7]]
            work.run(count, [1, 2, 3, 5, 7], progress, blocks, reports.append)
            assert [items for _, items, _ in reports] == blocks
            assert progress.done == 5
            with pytest.raises(PicsError, match="thirteen"):
                work.run(count, [13], progress, [[13]])
            assert work.ask(len) == 1
        with group.open(open_counted, "b") as work:
            assert work.ask(str.upper) == "B"
    assert opened == ["open a", "close a", "open a", "close a", "open b"]


@pytest.mark.parametrize(
    ("level", "theirs"),
    [(logging.DEBUG, logging.DEBUG), (logging.INFO, logging.WARNING), (logging.ERROR, logging.ERROR)],
)
def test_verbose_and_quiet_reach_the_workers(monkeypatch: pytest.MonkeyPatch, level: int, theirs: int) -> None:
    """What is told once is told by the process that started them."""
    monkeypatch.setattr(logging.getLogger("pics_cli"), "level", level)
    with local_executor(2) as pool:
        assert pool.submit(log_level).result() == theirs


def test_ranks_do_their_shares() -> None:
    ranks = Ranks(1, 2, lambda item: [item])
    opened.clear()
    with WorkerGroup(ranks).open(open_counted, "a") as work:
        own = WorkerGroup(ranks).own([0, 1, 2, 3, 4])
        reports = list[Any]()
        work.run(count, own, Progress(), [], reports.append)
        assert [items for _, items, _ in reports] == [[1, 3]]
        work.run(count, [], Progress(), [], reports.append)
        assert len(reports) == 1
    assert opened == ["open a", "close a"]
