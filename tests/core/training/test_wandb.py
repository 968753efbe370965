"""Weights & Biases gets what the log gets, when it is asked for."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator

from pics_cli.core.training import tracking
from pics_cli.core.training.tracking import MetricLogger, tracker_names
from pics_cli.errors import PicsError


def test_figures_and_sheets_reach_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_asked_for_but_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _name: None)
    assert tracker_names(False) == ["tensorboard"]
    with pytest.raises(PicsError, match=r"log\.wandb: Weights & Biases is not installed"):
        tracker_names(True)
