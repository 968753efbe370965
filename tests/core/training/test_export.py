"""From a checkpoint to a model folder that inference takes."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import safe_open
from torch import Tensor

from helpers.trainees import CORRECTING, recipe_of, small
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.base import digest, plain_recipe
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.recipes.training_sections import EmaSettings
from pics_cli.core.training import checkpoint
from pics_cli.core.training.checkpoint import Checkpoint
from pics_cli.core.training.ema import ModelEma
from pics_cli.core.training.export import export
from pics_cli.core.training.initial_model import load_initial_model
from pics_cli.core.training.networks import named_parameters, prepare_for_training
from pics_cli.core.training.optimizer import make_optimizer
from pics_cli.core.training.state import TrainingState
from pics_cli.errors import PicsError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(autouse=True)
def _plain_accelerator() -> Iterator[None]:
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


class Trained:
    """A run without its loop: weights that were moved at random, and their average."""

    def __init__(self, root: Path, recipe: TrainingRecipe, step: int = 12) -> None:
        model, new_network, base_sha256 = load_initial_model(recipe)
        trained = prepare_for_training(model, recipe.train, recipe.train_encoder, torch.float32)
        average = ModelEma(trained, EmaSettings(decay=0.5)) if recipe.ema.enabled else None
        optimizer = make_optimizer(trained, recipe.optimizer)
        state = TrainingState(model, new_network, base_sha256, trained, optimizer, average, Accelerator(cpu=True), step)
        draw = torch.Generator().manual_seed(3)
        for _ in range(3):
            with torch.no_grad():
                for value in trained.values():
                    value.add_(torch.randn(value.shape, generator=draw), alpha=0.05)
            if average is not None:
                average.step()
        state.save(
            checkpoint.path_of(root, step),
            {
                "base": base_sha256,
                "recipe": plain_recipe(recipe),
                "identity": {"data": {"A": {"contents": "aa", "samples": 7, "validation": "held out"}}},
                "world": {"processes": 2, "batch_size": 3, "accumulation": 4},
            },
        )
        self.found: Checkpoint = checkpoint.read(checkpoint.path_of(root, step))
        self.weights = {name: value.detach().clone() for name, value in named_parameters(model)}
        self.averages: dict[str, Tensor] = {} if average is None else average.state()[0]
        self.recipe = recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    AcceleratorState._reset_state(True)
    return Trained(tmp_path_factory.mktemp("run"), recipe_of(train="experts", model=CORRECTING))


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_average_lands_in_the_folder(
    run: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: Any
) -> None:
    caplog.set_level(logging.INFO, logger="pics_cli")
    recipe = replace(run.recipe, export=replace(run.recipe.export, dtype=dtype))
    export(recipe, run.found, tmp_path / "model")
    assert caplog.messages == [f"wrote {tmp_path / 'model'}"]
    written = json.loads((tmp_path / "model" / "pics.json").read_text())
    assert (written["trained_steps"], written["recipe_hash"]) == (12, digest(plain_recipe(recipe)))
    assert written["trained_on"] == ["aa"]
    assert json.loads((tmp_path / "model" / "training.json").read_text()) == {
        "recipe": recipe.name, "recipe_hash": digest(plain_recipe(recipe)), "steps": 12, "batch_size": 24,
        "data": {"A": {"samples": 7, "contents": "aa"}},
    }  # fmt: skip
    assert "12 optimiser steps of 24 samples" in (tmp_path / "model" / "README.md").read_text()
    assert (written["prediction_type"], written["correct_hint"], written["links"]) == ("sample", True, {})
    loaded = PicsModel.from_pretrained(tmp_path / "model", dtype=DTYPES[dtype])
    found = dict(named_parameters(loaded))
    assert found.keys() == run.weights.keys()
    assert run.averages.keys() < found.keys()
    for name, value in found.items():
        expected = run.averages.get(name, run.weights[name])
        assert torch.equal(value, expected.to(DTYPES[dtype])), name
    assert any(not torch.equal(value, run.weights[name]) for name, value in run.averages.items())
    for path in (tmp_path / "model").rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {DTYPES[dtype]}, path  # noqa: SIM118
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_without_an_average_the_weights_do(run: Trained, tmp_path: Path) -> None:
    """Where the run kept none, and where the recipe says now that it is not wanted."""
    plain = recipe_of(ema={"enabled": False}, train="published", export={"dtype": "fp32"})
    without = Trained(tmp_path / "run", plain, step=1)
    unwanted = replace(run.recipe, ema=replace(run.recipe.ema, enabled=False), export=plain.export)
    for name, recipe, trained in (("a", plain, without), ("b", unwanted, run)):
        export(recipe, trained.found, tmp_path / name)
        found = dict(named_parameters(PicsModel.from_pretrained(tmp_path / name)))
        assert all(torch.equal(value, trained.weights[name]) for name, value in found.items())


def test_an_earlier_export_is_replaced_and_nothing_else(run: Trained, tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(PicsError, match="exists already") as caught:
            export(run.recipe, run.found, out, overwrite)
        assert caught.value.hint
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    (out / "notes.txt").unlink()
    small().save_pretrained(out)
    (tmp_path / ".model.pics-new").mkdir()  # an export that was interrupted
    (tmp_path / "model.old").mkdir()  # the user's
    with pytest.raises(PicsError, match="exists already"):  # a model, but whose?
        export(run.recipe, run.found, out)
    export(run.recipe, run.found, out, overwrite=True)
    assert json.loads((out / "pics.json").read_text())["trained_steps"] == 12
    assert "12 optimiser steps" in (out / "README.md").read_text()
    (out / "README.md").write_text("my card")
    export(run.recipe, run.found, out, overwrite=True)
    assert (out / "README.md").read_text() == "my card"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.old"]


def test_an_interrupted_export_loses_nothing(run: Trained, tmp_path: Path) -> None:
    out, new, old = (tmp_path / name for name in ("model", ".model.pics-new", ".model.pics-old"))
    for path in (new, old):
        path.mkdir()
        (path / "notes.txt").write_text("mine")
        with pytest.raises(PicsError, match=rf"\.{path.name[1:]}: in the way, and no model folder that pics wrote"):
            export(run.recipe, run.found, out, overwrite=True)
        assert (path / "notes.txt").read_text() == "mine"
        shutil.rmtree(path)
    small().save_pretrained(old)  # between the two renames: the earlier folder has no name, the next is whole
    (old / "README.md").write_text("my card")
    small().save_pretrained(new)
    broken = replace(run.found, state={**run.found.state, "base": "another"})
    with pytest.raises(PicsError, match="was trained from another base model"):
        export(run.recipe, broken, out, overwrite=True)
    assert (out / "README.md").read_text() == "my card"
    assert not new.exists()
    assert not old.exists()
    export(run.recipe, run.found, out, overwrite=True)
    assert (out / "README.md").read_text() == "my card"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_of_another_base_is_refused(run: Trained, tmp_path: Path) -> None:
    assert run.recipe.model.shape
    shape = replace(run.recipe.model.shape, encoder_layers=2)
    other = replace(run.recipe, model=replace(run.recipe.model, shape=shape))
    with pytest.raises(PicsError, match="was trained from another base model"):
        export(other, run.found, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_from_a_model_of_pics(tmp_path: Path) -> None:
    """Frozen parts come from the base, what was trained from the checkpoint; the base stays as it is."""
    base = small(5)
    base.config = replace(base.config, trained_on=["zz"])
    base.save_pretrained(tmp_path / "base")
    recipe = recipe_of(train="experts", export={"dtype": "fp32"})
    model = replace(recipe.model, shape=None, base=str(tmp_path / "base"), reference_size=None, hint="collage",
                    guidance=2.5)  # fmt: skip
    recipe = replace(recipe, model=model)
    trained = Trained(tmp_path / "run", recipe, step=40)
    kept = trained.found.tensors(checkpoint.WEIGHTS)
    assert "unet.conv_in.weight" not in kept
    export(recipe, trained.found, tmp_path / "model")
    loaded = PicsModel.from_pretrained(tmp_path / "model")
    assert (loaded.config.hint, loaded.config.guidance, loaded.config.trained_steps) == ("collage", 2.5, 40)
    assert loaded.config.trained_on == ["aa", "zz"]
    assert torch.equal(loaded.unet.conv_in.weight, base.unet.conv_in.weight)
    assert not torch.equal(loaded.unet.conv_out.weight, base.unet.conv_out.weight)
    assert torch.equal(loaded.unet.conv_out.weight, trained.averages["unet.conv_out.weight"])
    assert PicsModel.from_pretrained(tmp_path / "base").config == base.config
    # Another model under the same name is not taken for the same.
    small(6).save_pretrained(tmp_path / "other")
    (tmp_path / "base").rename(tmp_path / "away")
    (tmp_path / "other").rename(tmp_path / "base")
    with pytest.raises(PicsError, match="was trained from another base model"):
        export(recipe, trained.found, tmp_path / "again")
