"""`pics.json`: what it takes, and what each fault of it is called."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from pics_cli.core.model.config import VERSION, Link, ModelConfig
from pics_cli.errors import PicsError

CHANGED = ModelConfig(
    image_size=256,
    objects=3,
    object_tokens=17,
    context_width=48,
    reference_size=56,
    tau=1.0,
    latent_channels=768,
    latent_scale=0.3611,
    downsampling=16,
    prediction_type="sample",
    correct_hint=True,
    input_scaling="signal",
    noise_schedule="zero_terminal_snr",
    shadows=True,
    hint="layers",
    fill=0.75,
    share_grid=2,
    share_sharpness=4.0,
    scheduler="ddim",
    steps=50,
    guidance=1.0,
    trained_steps=1000,
    trained_on=["a" * 64],
    recipe_hash="abc",
    base_models=["owner/base"],
    links={"vae": Link(source="owner/name@main", folder="vae", sha256={"config.json": "0" * 64})},
)


def write(folder: Path, content: Any) -> Path:
    path = folder / "pics.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("config", [ModelConfig(), CHANGED])
def test_saved_equals_loaded(tmp_path: Path, config: ModelConfig) -> None:
    config.save(tmp_path)
    assert ModelConfig.load(tmp_path) == config


def test_the_round_trip_covers_every_key() -> None:
    published = ModelConfig()
    same = [f.name for f in fields(ModelConfig) if getattr(CHANGED, f.name) == getattr(published, f.name)]
    assert same == ["version"]


def test_published_shape() -> None:
    config = ModelConfig()
    assert (config.image_size, config.latent_size, config.latent_channels) == (512, 64, 4)
    assert (config.objects, config.object_tokens, config.context_width) == (2, 257, 1024)
    assert (config.tau, config.latent_scale, config.guidance) == (0.5, 0.18215, 5.0)
    assert (config.prediction_type, config.hint, config.input_scaling) == ("epsilon", "background", "none")


def test_keys_left_out_are_the_published_ones(tmp_path: Path) -> None:
    write(tmp_path, {"image_size": 256})
    assert ModelConfig.load(tmp_path) == replace(ModelConfig(), image_size=256)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image_size", 0, "image_size: got 0, expected 1 <= value"),
        ("image_size", "512", 'image_size: got "512", expected integer'),
        ("image_size", 512.5, "image_size: got 512.5, expected integer"),
        ("objects", -1, "objects: got -1, expected 1 <= value"),
        ("tau", 0.0, "tau: got 0.0, expected 0 < value"),
        ("tau", None, "tau: got null, expected number"),
        ("latent_scale", "x", 'latent_scale: got "x", expected number'),
        ("guidance", 0.5, "guidance: got 0.5, expected 1 <= value"),
        ("guidance", float("nan"), "guidance: got NaN, expected a finite number"),
        ("steps", 0, "steps: got 0, expected 1 <= value"),
        ("trained_steps", -1, "trained_steps: got -1, expected 0 <= value"),
        ("prediction_type", "x0", "prediction_type: got \"x0\", expected 'epsilon', 'v_prediction' or 'sample'"),
        ("input_scaling", "snr", "input_scaling: got \"snr\", expected 'none' or 'signal'"),
        ("hint", "blank", "hint: got \"blank\", expected 'background', 'collage', 'overlay' or 'layers'"),
        ("correct_hint", 1, "correct_hint: got 1, expected boolean"),
        ("stepz", 3, "stepz: unknown key, nearest: steps, allowed: version, image_size, "),
        ("links", {"vae": {"folder": "vae"}}, "links.vae.source: missing"),
        (
            "links",
            {"vae": {"source": "a/b", "hash": ""}},
            "links.vae.hash: unknown key, allowed: source, folder, sha256",
        ),
        ("links", ["vae"], "links: got ["),
        ("correct_hint", True, "expected prediction_type sample where correct_hint is true"),
        ("downsampling", 7, "expected an image_size that downsampling divides"),
    ],
)
def test_faults(tmp_path: Path, key: str, value: object, message: str) -> None:
    path = write(tmp_path, {**asdict(ModelConfig()), key: value})
    with pytest.raises(PicsError) as error:
        ModelConfig.load(tmp_path)
    assert error.value.message.startswith(f"{path}: ")
    assert message in error.value.message
    assert "\n" not in error.value.message
    assert len(error.value.message) < 500
    assert ": :" not in error.value.message
    assert error.value.hint


def test_all_faults_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, {"tau": -1.0, "steps": "many", "guidence": 3})
    with pytest.raises(PicsError) as error:
        ModelConfig.load(tmp_path)
    lines = error.value.message.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{path}: ") for line in lines)
    assert "guidence: unknown key, nearest: guidance" in error.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "got list, expected a JSON object"),
        ("{", "unreadable: "),
        ("", "unreadable: "),
        ("[" * 100_000, "unreadable: no JSON that can be read: nested too deeply"),
        (json.dumps({"version": VERSION + 1, "future": True}), f"version {VERSION + 1} is newer than this pics knows"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(PicsError) as error:
        ModelConfig.load(tmp_path)
    assert error.value.message.startswith(f"{path}: ")
    assert message in error.value.message
    assert error.value.hint


def test_a_pipe_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pics.json")
    with pytest.raises(PicsError) as error:
        ModelConfig.load(tmp_path)
    assert error.value.message == f"{tmp_path / 'pics.json'}: unreadable: is a pipe, expected a file"


def test_not_a_model_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(PicsError) as error:
            ModelConfig.load(folder)
        assert error.value.message == f"{folder}: not a model folder of pics (no pics.json in it)"
        assert "pics convert CKPT OUT" in str(error.value.hint)
    (tmp_path / "checkpoints").mkdir()
    for name, words in (("checkpoints", "with --export models/NAME"), ("model", f"its model: {tmp_path / 'model'}")):
        (tmp_path / name).mkdir(exist_ok=True)
        with pytest.raises(PicsError, match="not a model folder of pics") as error:
            ModelConfig.load(tmp_path)
        assert words in str(error.value.hint)
