"""The array job of scripts/cluster: each task its range, all on one folder, as a batch system starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.detection import make_dataset, save_tiny

SCRIPT = Path(__file__).parents[2] / "scripts/cluster/annotate.sbatch"


@pytest.mark.slow
def test_tasks_of_an_array_make_all_labels(tmp_path: Path) -> None:
    make_dataset(tmp_path, 5)
    save_tiny(tmp_path / "sam")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/pics").symlink_to(Path(sys.executable).with_name("pics"))
    words = ["boxed.yaml", "--raw", "raw", "--out", "labels", "--sam", "sam", "--device", "cpu"]
    for task, complete in (("1", False), ("0", True)):
        given = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_ARRAY_TASK_ID": task, "SLURM_CPUS_PER_TASK": "1"}
        environment = {**os.environ, **given, "PICTURES": "4", "OMP_NUM_THREADS": "1"}
        subprocess.run(["bash", str(SCRIPT), *words], check=True, cwd="/", env=environment, timeout=180)
        manifest = json.loads((tmp_path / "labels/manifest.json").read_text())
        assert manifest["complete"] is complete
    assert manifest["pictures"] == manifest["of_pictures"] == 5
