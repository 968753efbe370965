"""The array job of scripts/cluster: each task its range, all on one folder, as a batch system starts them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from conftest import Run
from helpers.detection import make_dataset, save_tiny

SCRIPT = Path(__file__).parents[2] / "scripts/cluster/annotate.sbatch"


def test_tasks_of_an_array_make_all_labels(tmp_path: Path, pics: Run) -> None:
    """The command that each starts is written down, and run in this process, which has the libraries."""
    make_dataset(tmp_path, 5)
    save_tiny(tmp_path / "sam")
    command = tmp_path / ".venv/bin/pics"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\npwd >command\nprintf "%s\\n" "$@" >>command\nexit 3\n')
    command.chmod(0o755)
    words = ["boxed.yaml", "--raw", "raw", "--out", "labels", "--sam", "sam", "--device", "cpu"]
    for task, complete in (("1", False), ("0", True)):
        given = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_ARRAY_TASK_ID": task, "SLURM_CPUS_PER_TASK": "1"}
        environment = {**os.environ, **given, "PICTURES": "4"}
        done = subprocess.run(["bash", str(SCRIPT), *words], check=False, cwd="/", env=environment, timeout=60)
        assert done.returncode == 3  # that of the command
        place, *started = (tmp_path / "command").read_text().splitlines()
        assert place == str(tmp_path)
        result = pics(*started)
        assert result.returncode == 0, result.stderr
        manifest = json.loads((tmp_path / "labels/manifest.json").read_text())
        assert manifest["complete"] is complete
    assert manifest["pictures"] == manifest["of_pictures"] == 5
