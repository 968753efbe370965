"""The tables of docs/scale.md follow from the constants, which plans compute with, too; the simulation is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.in_process import run_script
from pics_cli.core.runtime.cluster_model import DISPATCH_SECONDS, START_SECONDS
from simulate_cluster import simulate

ROOT = Path(__file__).parents[2]


def test_they_are_current() -> None:
    done = run_script(ROOT / "scripts/scale_tables.py", "--check")
    assert done.returncode == 0, done.stderr


def test_a_wrong_figure_is_noticed(tmp_path: Path) -> None:
    """The same script in a copy with another constant."""
    for name in ("docs/scale.md", "docs/scale.json", "scripts/scale_tables.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    path = tmp_path / "docs/scale.json"
    path.write_text(path.read_text().replace('"value": 162', '"value": 170'))
    done = run_script(tmp_path / "scripts/scale_tables.py", "--check")
    assert done.returncode == 1
    assert "docs/scale.md: not what docs/scale.json gives" in done.stderr


def test_plans_compute_with_the_same_constants() -> None:
    known = json.loads((ROOT / "docs/scale.json").read_text())
    assert known["dispatch"]["value"] == DISPATCH_SECONDS
    assert known["start"]["value"] == START_SECONDS


def test_workers_that_never_wait() -> None:
    done = simulate(16, 160, lambda _: 2.0, dispatch=0, gap=0)
    assert done.seconds == pytest.approx(20)
    assert done.busy == pytest.approx(1)


def test_a_worker_alone_waits_for_the_gap() -> None:
    done = simulate(1, 101, lambda _: 2.0, dispatch=0.1, gap=0.5)
    assert done.seconds == pytest.approx(0.1 + 0.2 + 101 * 2 + 100 * 0.5)
    assert done.busy == pytest.approx(101 * 2 / (101 * 2 + 100 * 0.5))


def test_a_driver_with_too_many_workers_sets_the_pace() -> None:
    """1,000 workers of 2 s ask for 500 blocks a second, and get 100."""
    done = simulate(1000, 20_000, lambda _: 2.0, dispatch=0.01, gap=0.01)
    assert done.seconds == pytest.approx(20_000 * 0.01 + 2, rel=0.01)
    assert done.busy == pytest.approx(0.2, rel=0.02)


def test_blocks_of_different_length() -> None:
    """A greedy schedule: the long block is begun last, and the other worker is idle meanwhile."""
    done = simulate(2, 5, lambda block: 8.0 if block == 4 else 2.0, dispatch=0, gap=0)
    assert done.seconds == pytest.approx(12)
    assert done.busy == pytest.approx(16 / 24)
