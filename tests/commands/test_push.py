"""`pics push`: what it shows and sends, and what it refuses; against a hub on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from helpers.fake_hub import FakeHub, connect, fake_hub
from pics_cli.core.model.bundled import MODELS
from pics_cli.core.model.config import ModelConfig


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub() as hub:
        connect(hub, tmp_path / "cache", monkeypatch)
        yield hub


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """What `pics eval` writes of the bundled model, as far as a card needs it."""
    config = ModelConfig.load(MODELS / "pics-mini")
    model = {"name": "pics-mini", "label": "", "recipe_hash": config.recipe_hash}
    figures = {
        "psnr_region": {"mean": 21.61, "low": 21.5, "high": 21.74, "cases": 1000},
        "order": {"mean": 0.91, "low": 0.89, "high": 0.93, "cases": 655},
    }
    found = {
        "kind": "pics-eval", "name": "synth_bench", "measured": 1000, "data": {}, "recipe_hash": "0",
        "methods": ["parallel"], "strata": {"all": 1000}, "figures": {"all": {"parallel": figures}},
        "models": [model | {"trained_steps": config.trained_steps, "image_size": config.image_size}],
    }  # fmt: skip
    (tmp_path / "bench.json").write_text(json.dumps(found))
    return tmp_path / "bench.json"


def test_dry_run(pics: Any, hub: FakeHub, model: Path) -> None:
    """Every file with its size, and the card, which is not written; the hub is not asked."""
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    hub.refusals = {"": (500, "asked")}
    done = pics("push", model, "me/tiny", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    shown, _, card = done.stdout.partition("\nREADME.md, written by pics:\n\n")
    lines = [line.split() for line in shown.splitlines()[2:]]
    sizes = {words[0]: " ".join(words[1:]) for words in lines}
    for path, data in before.items():
        if path.name != "README.md":
            size = f"{len(data):,} bytes" if len(data) < 1e6 else f"{len(data) / 1e6:,.1f} MB"
            assert sizes[path.relative_to(model).as_posix()] == size
    assert sizes["README.md"] == f"{len(card.rstrip().encode()) + 1:,} bytes"
    assert len(sizes) == len(before) + 1  # and the sum
    assert ModelCard(card).data.library_name == "diffusers"
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before


def test_push(pics: Any, hub: FakeHub, model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "drawn.png")
    done = pics(
        "push", model, "me/tiny", "--private", "--revision", "v2", "--message", "Second", "--sheet", "drawn.png"
    )
    assert done.returncode == 0, done.stderr
    assert hub.commits == [("Second", "v2")]
    assert hub.private == {"me/tiny"}
    there = hub.repositories["me/tiny"]["v2"]
    assert there["sheet.png"] == (tmp_path / "drawn.png").read_bytes()
    assert "](sheet.png)" in there["README.md"].decode()
    assert f"{hub.url}/me/tiny/commit/" in done.stdout
    assert "pics infer --model me/tiny" in done.stdout


def test_the_bundled_model_with_its_figures(pics: Any, hub: FakeHub, results: Path, tmp_path: Path) -> None:
    done = pics("push", "pics-mini", "me/mini", "--results", results)
    assert done.returncode == 0, done.stderr
    card = ModelCard(hub.repositories["me/mini"]["main"]["README.md"].decode())
    assert card.data.license == "mit"
    assert {result.metric_type: result.metric_value for result in card.data.eval_results}["order"] == 0.91
    row = "| all (1,000) | parallel | 21.61 ±0.12 | 0.910 ±0.020 |"
    assert row in card.text
    assert not (MODELS / "pics-mini/README.md").exists()
    # Results that lie in the folder are taken.
    shutil.copytree(MODELS / "pics-mini", tmp_path / "copy")
    shutil.copyfile(results, tmp_path / "copy/results.json")
    assert row in pics("push", "copy", "me/mini", "--dry-run").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "me/x"], "nowhere: not a model folder of pics"),
        (["model", "x"], "x: no name of a repository"),
        (["model", "me/x", "--sheet", "none.png"], "--sheet none.png: no picture"),
        (["model", "me/x", "--results", "none.json"], "none.json: cannot be read"),
        (["model", "me/x", "--results", "model/pics.json"], "model/pics.json: not the results of `pics eval`"),
        (
            ["model", "me/x", "--results", "bench.json"],
            "was measured of pics-mini (8,621 steps), not of model (0 steps",
        ),
        (["model", "you/x"], "you/x: you may not write there"),
    ],
)
@pytest.mark.usefixtures("results")
def test_bad_input(pics: Any, hub: FakeHub, model: Path, words: list[str], message: str) -> None:
    done = pics("push", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "\n\nhint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.commits == []


def test_secrets_stay(pics: Any, hub: FakeHub, model: Path) -> None:
    (model / ".env").write_text("x")
    (model / "optimizer.pt").write_bytes(b"x")
    done = pics("push", model, "me/x")
    assert done.returncode == 2
    assert (
        f"error: {model}: holds what does not go to the hub:\n  .env: looks like a secret\n  optimizer.pt: "
        in done.stderr
    )
    assert hub.repositories == {}
