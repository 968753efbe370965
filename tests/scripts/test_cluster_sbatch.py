"""Batch scripts of scripts/cluster that build shards: an array of ranges, and a Ray cluster in an allocation.

What SLURM and Ray would do stands in for them: small scripts that write down what they were asked for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from conftest import Run

CLUSTER = Path(__file__).parents[2] / "scripts/cluster"
# A node's part of Ray: there until it is told to end.
RAY = """#!/bin/bash
case $1 in
    health-check) grep -q "start --head" ray.log ;;
    start)
        sleep 60 & sleeper=$!
        trap 'kill $sleeper; echo "end of $2" >>ray.log; exit 0' TERM
        echo "$*" >>ray.log
        wait
esac
"""
ALL_NODES = "until grep -q 'start --address' ray.log; do sleep 0.02; done\n"
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do if [[ $1 == -w ]]; then echo "on $2" >>srun.log; shift; fi; shift; done
exec "$@"
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize("script", sorted(CLUSTER.iterdir()), ids=lambda path: path.name)
def test_syntax(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


def test_tasks_of_an_array_build_all_shards(tmp_path: Path, lvis_raw: Path, pics: Run) -> None:
    """The command that each starts is written down, and run in this process, which has the libraries."""
    write(tmp_path / ".venv/bin/pics", '#!/bin/sh\npwd >command\nprintf "%s\\n" "$@" >>command\nexit 3\n')
    words = ["lvis", "--raw", str(lvis_raw), "--out", "shards", "--limit", "12", "--shard-size", "4"]
    for task, complete in (("1", False), ("7", False), ("0", True)):
        given = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_ARRAY_TASK_ID": task, "SLURM_CPUS_PER_TASK": "1"}
        done = subprocess.run(
            ["bash", str(CLUSTER / "build_shards.sbatch"), *words],
            check=False, cwd="/", env={**os.environ, **given, "SHARDS": "2"}, timeout=60,
        )  # fmt: skip
        assert done.returncode == 3  # that of the command
        place, *started = (tmp_path / "command").read_text().splitlines()
        assert place == str(tmp_path)
        result = pics(*started)
        assert result.returncode == 0, result.stderr
        manifest = json.loads((tmp_path / "shards/manifest.json").read_text())
        assert manifest["complete"] is complete
    assert len(manifest["shards"]) == 3


@pytest.fixture
def allocation(tmp_path: Path) -> Mapping[str, str]:
    """Three nodes, and what a job in them sees."""
    write(tmp_path / ".venv/bin/ray", RAY)
    write(tmp_path / "bin/srun", SRUN)
    write(tmp_path / "bin/scontrol", "#!/bin/sh\n[ \"$*\" = 'show hostnames n[1-3]' ] && printf 'n1\\nn2\\nn3\\n'\n")
    write(tmp_path / "bin/hostname", "#!/bin/sh\necho 10.0.0.1 fe80::1\n")
    return {
        **os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_ID": "4017", "SLURM_CPUS_PER_TASK": "32", "RAY_POLL": "0.02",
        "RAY_TMPDIR": "/scratch",
    }  # fmt: skip


def start(allocation: Mapping[str, str]) -> subprocess.Popen[bytes]:
    words = ["build-shards", "lvis", "--out", "a folder"]
    return subprocess.Popen(["bash", str(CLUSTER / "ray.sbatch"), *words], cwd="/", env=allocation)


def test_a_ray_cluster_lives_as_long_as_the_command(tmp_path: Path, allocation: Mapping[str, str]) -> None:
    text = 'echo "$RAY_ADDRESS $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}" >command\nprintf "%s\\n" "$@" >>command\nexit 5\n'
    write(tmp_path / ".venv/bin/pics", f"#!/bin/bash\n{ALL_NODES}{text}")
    assert start(allocation).wait(60) == 5  # that of the command
    address = "10.0.0.1:24017"
    started = (tmp_path / "command").read_text().splitlines()
    assert started == [f"{address} token 64", "build-shards", "lvis", "--out", "a folder", "--engine", "ray"]
    log = (tmp_path / "ray.log").read_text().splitlines()
    each = "--num-cpus 32 --num-gpus 0 --disable-usage-stats --block"
    head = f"start --head --node-ip-address 10.0.0.1 --port 24017 --temp-dir /scratch/ray-4017 {each}"
    assert head in log
    assert f"start --address {address} {each}" in log
    assert log.index(head) < log.index(f"start --address {address} {each}")
    assert sorted(log[-2:]) == ["end of --address", "end of --head"]
    assert (tmp_path / "srun.log").read_text().splitlines() == ["on n1", "on n1", "on n2,n3"]


def test_the_signal_before_the_time_limit_ends_the_command_first(tmp_path: Path, allocation: Mapping[str, str]) -> None:
    """The command takes its time to finish what it writes; its exit code is the job's."""
    ending = "kill $sleeper; sleep 0.2; echo saved >>ray.log; exit 143"
    text = f"sleep 60 & sleeper=$!\ntrap '{ending}' TERM\ntouch running\nwait\n"
    write(tmp_path / ".venv/bin/pics", f"#!/bin/bash\n{ALL_NODES}{text}")
    job = start(allocation)
    deadline = time.monotonic() + 60
    while not (tmp_path / "running").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 143
    log = (tmp_path / "ray.log").read_text().splitlines()
    assert log[-3] == "saved"
    assert sorted(log[-2:]) == ["end of --address", "end of --head"]
