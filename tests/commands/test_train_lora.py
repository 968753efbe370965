"""`pics train --set train=lora`: from a model to an adapter, stopped and resumed, exported, planned; and refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import Result

from helpers.trainees import stir
from helpers.training_runs import (
    MODEL,
    SHAPE,
    checkpoints,
    files,
    last_step,
    lines,
    losses,
    make_data,
    start,
    train,
    train_in,
    write_recipe,
)
from helpers.two_ranks import environments
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.small_model import new_small_model
from pics_cli.core.recipes.training_sections import ModelShape
from pics_cli.core.training.networks import named_parameters

GIVEN = {key: value for key, value in MODEL.items() if key != "shape"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a trained model as far as the command knows, and a recipe for an adapter of it."""
    folder = tmp_path_factory.mktemp("lora")
    make_data(folder / "data")
    shape: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in SHAPE.items()}
    model = new_small_model(ModelShape(**shape), GIVEN)
    stir(model)
    model.save_pretrained(folder / "base")
    write_recipe(
        folder / "lora.yaml", data__root=str(folder / "data"), steps=8, batch_size=1, accumulation=2, train="lora",
        train_encoder=False, lora={"rank": 4}, model={"base": str(folder / "base")}, export={"dtype": "fp32"},
        validation__every=4, validation__bins=1, checkpoints__every=3, optimizer={"learning_rate": 1.0e-2, "warmup": 2},
    )  # fmt: skip
    return folder


def go(folder: Path, *words: str | Path) -> Result:
    return train_in(folder, "lora.yaml", *words)


@pytest.fixture(scope="module")
def straight(place: Path) -> Path:
    """A run that nothing happened to."""
    done = go(place / "straight")
    assert done.exit_code == 0, done.stderr
    assert "adapter" in done.stdout
    return place / "straight/run"


def test_leaves_an_adapter(place: Path, straight: Path) -> None:
    assert len(set(losses(straight))) == 8
    assert not (straight / "model").exists()
    described = json.loads((straight / "adapter/adapter.json").read_text())
    assert (described["rank"], described["alpha"], described["trained_steps"]) == (4, 4.0, 8)
    assert described["base"] == str(place / "base")
    assert described["target_modules"][:2] == ["attn1.to_q", "attn1.to_k"]
    tensors = load_file(straight / "adapter/pytorch_lora_weights.safetensors")
    assert all(value.dtype == torch.float32 and value.any() for value in tensors.values())
    state = json.loads((straight / "checkpoints/step_00000008/state.json").read_text())
    assert load_file(straight / "checkpoints/step_00000008/weights.safetensors").keys() == {
        name.replace(".weight", ".default.weight") for name in tensors
    }
    assert state["base"] == described["base_fingerprint"]
    assert list((straight / "samples").iterdir())


def test_killed_and_resumed(place: Path, straight: Path) -> None:
    """To the last bit of the adapter, the log and the validation."""
    folder = place / "stopped"
    folder.mkdir()
    run = folder / "run"
    words = ["--recipe", "../lora.yaml", "--root-dir", "run"]
    assert start(folder, *words).when(lambda: last_step(run) >= 4, signal.SIGKILL) == -signal.SIGKILL
    assert checkpoints(run)[-1] in ("step_00000003", "step_00000006")
    assert not (run / "adapter").exists()
    done = go(folder)
    assert done.exit_code == 0, done.stderr
    assert lines(run) == lines(straight)
    assert lines(run, "validation") == lines(straight, "validation")
    assert files(run / "adapter") == files(straight / "adapter")


def test_two_processes_are_one_with_twice_the_batch(place: Path) -> None:
    words = ["--recipe", "lora.yaml", "--steps", "4", "--root-dir", "two"]
    first, second = (start(place, *words, keys=None, **one) for one in environments())
    assert (first.code(), second.code()) == (0, 0), first.text + second.text
    done = train("--recipe", place / "lora.yaml", "--steps", "4", "--root-dir", place / "one", "--batch-size", "2")
    assert done.exit_code == 0, done.stderr
    assert len(losses(place / "one")) == 4
    assert losses(place / "two") == pytest.approx(losses(place / "one"), rel=1e-4)
    theirs = load_file(place / "one/adapter/pytorch_lora_weights.safetensors")
    for name, value in load_file(place / "two/adapter/pytorch_lora_weights.safetensors").items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-3)


def test_export(place: Path, straight: Path) -> None:
    """The adapter as at the end of the run, and the base model with it in it."""
    folder = straight.parent
    assert go(folder, "--export", "again").exit_code == 0
    assert files(folder / "again") == files(straight / "adapter")
    assert go(folder, "--export", "merged", "--merge").exit_code == 0
    merged, base = (
        dict(named_parameters(PicsModel.from_pretrained(path))) for path in (folder / "merged", place / "base")
    )
    targets = {
        name.partition(".lora_")[0] + ".weight"
        for name in load_file(straight / "adapter/pytorch_lora_weights.safetensors")
    }
    assert {name for name, value in merged.items() if not torch.equal(value, base[name])} == targets
    done = go(folder, "--export", "merged")
    assert done.exit_code == 2
    assert "merged: exists already" in done.stderr


def test_plan_names_the_adapter(place: Path) -> None:
    done = go(place / "plan", "--plan")
    assert done.exit_code == 0, done.stderr
    assert "(lora)" in done.stdout
    assert "adapter, of these" in done.stdout
    assert not (place / "plan/run").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--set lora.rank=0", "--set lora.rank: got 0, expected 1 <= value"),
        ("--set lora.rank=9", "lora.rank: got 9, expected at most 8, the width of this model's narrowest attention"),
        ("--set lora.alpha=0", "--set lora.alpha: got 0, expected 0 < value"),
        ("--set lora.attentions=[attn3]", 'got "attn3", expected '),
        ("--set lora.attentions=[]", "lora.attentions: got [], expected at least one value"),
        ("--set train=experts", "lora.yaml: expected train: lora where there are values of lora"),
        ("--set train_encoder=true", "lora.yaml: expected train_encoder: false with train: lora, which trains an"),
        ("--set model.base=null", "train: lora adapts a trained model of pics, and none is named"),
        ("--base sd", "--base sd: no model of pics (no pics.json in it), and train: lora adapts a trained one"),
        ("--merge", "--merge goes with --export"),
        ("--export out --merge", "run: no checkpoint to export"),
    ],
)
def test_refused(place: Path, words: str, text: str) -> None:
    (place / "errors/sd/unet").mkdir(parents=True, exist_ok=True)
    done = go(place / "errors", *words.split())
    assert done.exit_code == 2
    assert text in done.stderr
    assert not (place / "errors/run").exists()


def test_merge_needs_an_adapter_to_merge(place: Path) -> None:
    full = ["--set", "train=experts", "--set", "lora=null", "--steps", "1", "--root-dir", "full"]
    assert go(place / "full", *full).exit_code == 0
    done = go(place / "full", *full, "--export", "out", "--merge")
    assert done.exit_code == 2
    assert "--merge: full trains no adapter (train: experts)" in done.stderr


def test_the_rank_is_part_of_a_run(straight: Path) -> None:
    done = go(straight.parent, "--steps", "9", "--set", "lora.rank=2")
    assert done.exit_code == 2
    assert "was begun otherwise:\n  recipe.lora.rank: the folder has 4, this run 2" in done.stderr
