"""The benchmark by number of objects runs through, with a small model."""

from __future__ import annotations

from pathlib import Path

from helpers.in_process import run_script

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "objects.py"


def test_seconds_of_each_number_and_mode(tiny_model: Path) -> None:
    done = run_script(SCRIPT, "seconds", "--model", tiny_model, "--scenes", "1", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.startswith("1 scenes of each number, 1 rounds")
    figures = [row.split("  ")[0] for row in rows]
    modes = ("parallel", "sequential")
    assert figures == [f"CPU time, {count} objects, {mode}" for count in range(2, 7) for mode in modes]
    assert rows[0].split("  ")[-1].strip().startswith("1.00x (1.00 to 1.00): ")
