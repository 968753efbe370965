"""The results in README and docs/pics-mini.md are those of docs/synth_bench.json, which are of the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.in_process import run_script
from pics_cli.core.model.bundled import bundled_model
from pics_cli.core.model.config import ModelConfig

ROOT = Path(__file__).parents[2]


def test_they_are_current() -> None:
    done = run_script(ROOT / "scripts/readme_results.py", "--check")
    assert done.returncode == 0, done.stderr


def test_they_are_of_the_bundled_model() -> None:
    results = json.loads((ROOT / "docs/synth_bench.json").read_text())
    config = ModelConfig.load(bundled_model())
    assert results["name"] == "synth_bench"
    assert [model["recipe_hash"] for model in results["models"]] == [config.recipe_hash]
    assert [model["trained_steps"] for model in results["models"]] == [config.trained_steps]
    assert results["methods"] == ["parallel", "sequential", "paste", "poisson"]
    assert results["measured"] >= 160


def test_a_wrong_figure_is_noticed(tmp_path: Path) -> None:
    """The same script in a copy whose README says something else."""
    for name in ("README.md", "docs/pics-mini.md", "docs/synth_bench.json", "scripts/readme_results.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    readme = tmp_path / "README.md"
    begin, rest = readme.read_text().split("<!-- results: begin -->")
    readme.write_text(begin + "<!-- results: begin -->" + rest.replace("| parallel | ", "| parallel | 9", 1))
    done = run_script(tmp_path / "scripts/readme_results.py", "--check")
    assert done.returncode == 1
    assert "README.md" in done.stderr
