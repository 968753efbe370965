"""The denoising benchmark runs through, with small shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.in_process import run_script

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "denoise.py"


def table(*arguments: str) -> dict[str, list[str]]:
    """Result, goal and met of every row."""
    done = run_script(SCRIPT, *arguments, "--tiny", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    head, rule, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines())
    assert head == ["figure", "result", "goal", "met"]
    assert set(rule) == {"---"}
    assert all(len(row) == 4 for row in rows)
    return {row[0]: row[1:] for row in rows}


@pytest.mark.slow
def test_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")  # the script would leave it set
    rows = table("work", "seconds", "activations", "candidates", "gpu_memory")
    for figure in ("work, TFLOP a step", "seconds, CPU time of a step", "activations, peak of a step"):
        assert {f"{figure}, 30%", f"{figure}, 80%"} <= rows.keys()
    assert float(rows["relative L2 of the branches' predictions"][0].split(";")[0]) <= 1e-5
    # Small shapes say nothing about the goals.
    assert all(goal == met == "" for _, goal, met in rows.values())
    assert "candidates, TFLOP a step and candidate, 80%" in rows
    assert {f"gpu memory, {mode}" for mode in ("resident", "sequential", "offload")} <= rows.keys()
