"""`pics annotate` in two processes, as a launcher starts them: each block once, the bytes of a single one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from detection import make_dataset, save_tiny


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def started(at: Path, words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pics_cli", "annotate", *words],
        cwd=at, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def two(at: Path, *words: str) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each of two ranks."""
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    shared["MASTER_PORT"] = str(free_port())
    ranks = [started(at, list(words), {**shared, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(2)]
    texts = [rank.communicate(timeout=180) for rank in ranks]
    return [(rank.returncode, *text) for rank, text in zip(ranks, texts, strict=True)]


@pytest.mark.slow
def test_two_processes_share_the_blocks(tmp_path: Path) -> None:
    make_dataset(tmp_path, 9)
    save_tiny(tmp_path / "sam")
    words = ["boxed.yaml", "--raw", "raw", "--sam", "sam", "--device", "cpu", "--workers", "1"]
    whole = started(tmp_path, [*words, "--out", "whole"], {})
    assert whole.wait(180) == 0
    (first, out, _), (second, silent, _) = two(tmp_path, *words, "--out", "both")
    assert (first, second) == (0, 0)
    assert "9 of 9" in out
    assert not silent  # one rank speaks for both
    found, expected = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("both", "whole")
    )
    assert len(found) == 2 * 5 + 1
    assert found == expected
    (code, _, error), (other, _, _) = two(tmp_path, *words, "--out", "both", "--multimask", "off")
    assert (code, other) == (2, 2)
    assert 'multimask: the folder has "best", this run "off"' in error
    assert "Traceback" not in error
