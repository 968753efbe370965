"""Models that cast shadows: saved and loaded, and folders whose parts contradict each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.trainees import LAYERS, SHADOWS, small
from pics_cli.core.model.config import SHADOW_MAPS, checked_config
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.schedulers import make_scheduler
from pics_cli.errors import PicsError


def model() -> PicsModel:
    return small(**SHADOWS, steps=1, guidance=1.0, scheduler="ddim")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shadows") / "model"
    model().save_pretrained(folder)
    return folder


def test_saved_and_loaded(saved: Path) -> None:
    loaded = PicsModel.from_pretrained(saved)
    assert loaded.config == model().config
    assert float(loaded.scheduler.alphas_cumprod[-1]) == 0
    for name, part in model().parts.items():
        theirs = loaded.parts[name].state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in part.state_dict().items()), name
    assert any(key.startswith("light_head.") for key in loaded.controlnet.state_dict())


def test_channels() -> None:
    config, plain = model().config, small(**LAYERS).config
    assert config.hint_channels == plain.hint_channels + 2 * len(SHADOW_MAPS)
    assert config.output_channels == plain.output_channels + 3 * len(SHADOW_MAPS) * config.share_grid**2


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("pics.json", {"noise_schedule": "published"}, "rescale_betas_zero_snr True in scheduler"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": False}, "rescale_betas_zero_snr False"),
        ("pics.json", {"shadows": False}, "estimates_light"),
    ],
)
def test_folders_that_contradict_themselves(
    saved: Path, tmp_path: Path, file: str, change: dict[str, Any], words: str
) -> None:
    folder = tmp_path / "model"
    for path in saved.rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(saved)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    values = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**values, **change}))
    with pytest.raises(PicsError, match=words):
        PicsModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shadows": True}, "shadows false where hint is not layers"),
        ({"noise_schedule": "zero_terminal_snr"}, "prediction_type is epsilon"),
    ],
)
def test_values_that_do_not_fit(values: dict[str, Any], words: str) -> None:
    with pytest.raises(PicsError, match=words):
        checked_config(values)


@pytest.mark.parametrize("name", ["ddim", "dpm++", "unipc", "euler"])
def test_schedulers_start_without_signal(name: str) -> None:
    scheduler = make_scheduler(name, model().scheduler, "sample", 4)
    assert float(scheduler.alphas_cumprod[-1]) < 1e-6


def test_a_scheduler_that_cannot() -> None:
    with pytest.raises(PicsError, match="--scheduler heun: cannot start"):
        make_scheduler("heun", model().scheduler, "sample", 4)
