"""--engine of commands whose workers hold a model: what it does not go with. What it does: `test_ray.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.infer_command import typed

COMMANDS = {
    "annotate": ("annotate", "coco"),
    "infer": ("infer", "--input", "sample"),
    "eval": ("eval", "--recipe", "synth_bench"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_an_engine_does_not_go_with(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, before anything is looked for or written."""
    monkeypatch.chdir(tmp_path)

    def refused(*words: str) -> str:
        done = typed(*COMMANDS[command], *words)
        assert done.exit_code == 2, done.stderr
        return done.stderr

    assert "error: --engine: got 'slurm', expected local, ray or ray://HOST:PORT" in refused("--engine", "slurm")
    for device in ("cuda:1", "mps"):
        told = refused("--engine", "ray", "--device", device)
        assert f"error: --engine ray --device {device}: each worker gets a GPU of its own" in told
        assert "hint: leave out --device, or take one of auto, cpu, cuda" in told
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = refused("--engine", "ray")
    assert "error: --engine ray: a launcher started several processes" in told
    assert "hint: leave out the launcher: the engine uses every GPU of the cluster" in told
    assert not list(tmp_path.iterdir())


def test_a_plan_is_made_here() -> None:
    done = typed("annotate", "coco", "--plan", "--engine", "ray")
    assert done.exit_code == 2
    assert "--plan goes without --range, --retry-failed, --overwrite, --contact-sheet and --engine" in done.stderr
