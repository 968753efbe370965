"""The log of a run: a line for each event, cut back when the run is resumed; TensorBoard and Weights & Biases."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image

from pics_cli.core.training.tracking import LOG, MetricLogger, tracker_names, truncate_log
from pics_cli.errors import PicsError


@pytest.fixture(autouse=True)
def _plain_accelerator() -> Iterator[None]:
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def record(root: Path, after: int) -> MetricLogger:
    accelerator = Accelerator(cpu=True, log_with=tracker_names(False), project_dir=str(root))
    return MetricLogger(root, accelerator, "mine", after)


def lines(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / LOG).read_text().splitlines()]


def points(root: Path) -> list[tuple[int, str, float]]:
    """Steps, names and values in TensorBoard's files, in the order of writing."""
    from tensorboard.compat.proto.event_pb2 import Event

    found = []
    for path in sorted((root / "tensorboard").rglob("events*"), key=lambda path: path.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4
            for value in event.summary.value:
                found.append((event.step, value.tag, value.simple_value))
    return found


def test_numbers_that_are_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A validation loss of nan stops no run: it is null in the log, which stays JSON, and told."""
    first = record(tmp_path, 0)
    first.log("validation", 3, {"loss": float("nan"), "loss_0": float("inf"), "probe_z": 1.5, "keys": ["a"]})
    first.close()
    expected = {"kind": "validation", "step": 3, "loss": None, "loss_0": None, "probe_z": 1.5, "keys": ["a"]}
    assert lines(tmp_path) == [expected]
    assert caplog.messages == ["step 3, validation: nan or inf: loss, loss_0"]


def test_cut_back_when_the_run_goes_on(tmp_path: Path) -> None:
    """A run that was killed at step 7 goes on from its checkpoint of step 4; its last line was half written."""
    first = record(tmp_path, 0)
    for step in range(1, 8):
        first.log("train", step, {"loss": step / 10, "bad": 0})
        if step in (4, 6):
            first.log("validation", step, {"loss": 1.0})
    first.close()
    with (tmp_path / LOG).open("a") as file:
        file.write('{"kind": "train", "step": 3, "lo')
    second = record(tmp_path, 4)
    assert [(line["kind"], line["step"]) for line in lines(tmp_path)] == [
        *(("train", step) for step in (1, 2, 3, 4)), ("validation", 4)]  # fmt: skip
    second.log("train", 5, {"loss": 0.05, "samples": 80})
    second.close()
    assert lines(tmp_path)[-1] == {"kind": "train", "step": 5, "loss": 0.05, "samples": 80}
    assert lines(tmp_path)[3] == {"kind": "train", "step": 4, "loss": 0.4, "bad": 0}
    assert not list(tmp_path.glob("*.tmp"))


def test_from_the_start_and_from_the_end(tmp_path: Path) -> None:
    for step in (0, 9):
        record(tmp_path, step).close()
        assert lines(tmp_path) == []
    one = record(tmp_path, 0)
    one.log("train", 1, {"loss": 1.0})
    one.close()
    record(tmp_path, 1).close()
    assert len(lines(tmp_path)) == 1
    record(tmp_path, 0).close()
    assert lines(tmp_path) == []


@pytest.mark.parametrize("torn", ["", "{", '{"kind": "train", "step": 2, "loss": 0.', '"words"', '{"loss": 1}', "[1]",
                                  '{"step": null}', "\x00\x00\x00", '{"kind": "train"}'])  # fmt: skip
@pytest.mark.parametrize("end", ["", "\n"])
def test_lines_that_are_none_are_dropped(tmp_path: Path, torn: str, end: str) -> None:
    path = tmp_path / LOG
    path.write_text('{"kind": "train", "step": 1, "loss": NaN}\n' + torn + end)
    truncate_log(path, 5)
    assert path.read_text() == '{"kind": "train", "step": 1, "loss": NaN}\n'


def test_a_torn_character_does_not_matter(tmp_path: Path) -> None:
    """A power cut can leave bytes that are no text."""
    path = tmp_path / LOG
    path.write_bytes(b'{"kind": "train", "step": 1}\n\xff\xfe\x80')
    truncate_log(path, 5)
    assert path.read_text() == '{"kind": "train", "step": 1}\n'


def test_every_line_is_on_disk_at_once(tmp_path: Path) -> None:
    one = record(tmp_path, 0)
    one.log("train", 1, {"loss": 1.0})
    assert lines(tmp_path) == [{"kind": "train", "step": 1, "loss": 1.0}]
    one.close()


def test_points_and_sheets(tmp_path: Path) -> None:
    one = record(tmp_path, 0)
    one.log("train", 3, {"loss": 0.25, "rate": 2, "words": "no number"})
    one.log("validation", 3, {"loss": 0.5})
    sheet = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    one.log_sheet(3, sheet)
    one.close()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "samples" / "step_00000003.png")), sheet)
    found = points(tmp_path)
    assert {(3, "train/loss", 0.25), (3, "train/rate", 2.0), (3, "validation/loss", 0.5)} <= set(found)
    assert any(tag == "samples" for _, tag, _ in found)
    assert not any("words" in tag for _, tag, _ in found)
    assert lines(tmp_path)[0]["words"] == "no number"


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / LOG).mkdir()
    with pytest.raises(PicsError, match=r"log.jsonl: cannot write"):
        record(tmp_path, 0)


def test_trackers() -> None:
    assert tracker_names(False) == ["tensorboard"]
    assert tracker_names(True) == ["tensorboard", "wandb"]


def test_metrics_and_sheets_reach_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network: the run is kept in a folder, to be sent later."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    accelerator = Accelerator(cpu=True, log_with=tracker_names(True), project_dir=str(tmp_path))
    record = MetricLogger(tmp_path, accelerator, "a run", 0)
    record.log("train", 1, {"loss": 0.123456789})
    record.log_sheet(1, np.zeros((8, 8, 3), np.uint8))
    record.close()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (log,) = run.glob("run-*.wandb")
    for _ in range(100):  # written by a process of its own, which may be a moment behind
        if b"0.123456789" in log.read_bytes():
            break
        time.sleep(0.1)
    assert b"train/loss" in log.read_bytes()
    assert b"0.123456789" in log.read_bytes()
    assert list((run / "files" / "media" / "images").glob("samples_*.png"))
