"""Names of models: the published one wherever it lies, checkpoints that are converted once, and what is not there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import research
from pics_cli.core.model.bundled import MODELS
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.convert import convert_checkpoint
from pics_cli.core.model.find_model import PUBLISHED_FILE, find_model
from pics_cli.core.model.weight_files import open_checkpoint
from pics_cli.core.runtime.progress import Progress
from pics_cli.errors import PicsError

SMALL: dict[str, Any] = {"head_width": research.HEAD_WIDTH, "encoder_head_width": 16, "image_size": 128}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `checkpoints/` and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PICS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


@pytest.fixture
def checkpoint(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the published file's name; what the weights of so small a network do not tell is given."""
    path = here / "checkpoints" / PUBLISHED_FILE
    torch.save({"state_dict": research.checkpoint(), "global_step": 6000}, path)
    from pics_cli.core.model import convert

    def convert_small(checkpoint: Path, out: Path, dtype: torch.dtype) -> Any:
        return convert_checkpoint(checkpoint, out, dtype=dtype, **SMALL)

    monkeypatch.setattr(convert, "convert_checkpoint", convert_small)
    return path


def test_the_published_model_is_converted_once(checkpoint: Path, here: Path) -> None:
    folder = find_model("pics", progress=Progress())
    assert folder.is_relative_to(here / "cache")
    assert ModelConfig.load(folder).trained_steps == 6000
    unet = open_checkpoint(folder / "unet/diffusion_pytorch_model.safetensors")
    assert unet.read("conv_in.bias").dtype == torch.bfloat16
    written = (folder / "pics.json").stat().st_mtime_ns
    assert find_model("pics") == find_model(str(checkpoint)) == folder
    checkpoint.unlink()
    assert find_model("pics") == folder, "the cache is enough"
    assert (folder / "pics.json").stat().st_mtime_ns == written


def test_another_checkpoint_of_the_same_name_is_converted_anew(checkpoint: Path) -> None:
    first = find_model(str(checkpoint))
    torch.save({"state_dict": research.checkpoint(), "global_step": 7000}, checkpoint)
    second = find_model(str(checkpoint))
    assert first != second
    assert [ModelConfig.load(folder).trained_steps for folder in (first, second)] == [6000, 7000]


@pytest.mark.parametrize("name", ["pics", Path(PUBLISHED_FILE).stem])
def test_a_converted_one_beside_the_checkpoints_is_found(here: Path, tiny_model: Path, name: str) -> None:
    shutil.copytree(tiny_model, here / "checkpoints" / name)
    assert find_model("pics") == Path("checkpoints") / name


def test_folders_have_precedence(here: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, here / "pics")
    assert find_model("pics") == Path("pics")
    assert find_model(str(tiny_model)) == tiny_model
    assert find_model("pics-mini") == MODELS / "pics-mini"


def test_what_to_download_is_told(here: Path) -> None:
    with pytest.raises(PicsError, match="--model pics: the published model is not on this machine") as told:
        find_model("pics")
    for fact in (PUBLISHED_FILE, "18.45 GB", "MIT", "RyanHangZhou/PICS", "dinov2_vitg14_pretrain.pth", "checkpoints/"):
        assert fact in str(told.value.hint)


WRONG: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a web page": ("page.ckpt", lambda path: path.write_text("<!DOCTYPE html><title>Sign in"), "not a checkpoint"),
    "no file": ("none.ckpt", lambda _path: None, "no such folder"),
    "a picture": ("a.png", lambda path: path.write_bytes(b"\x89PNG"), "is a file, expected a folder"),
    "another project's": (
        "anydoor.ckpt",
        lambda path: torch.save(
            {key: value for key, value in research.checkpoint().items() if ".gate_q." not in key}, path
        ),
        "no interaction blocks .* AnyDoor",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_model(here: Path, name: str) -> None:
    file, write, text = WRONG[name]
    write(here / file)
    with pytest.raises(PicsError, match=text) as told:
        find_model(file)
    assert told.value.hint
    assert not list((here / "cache").rglob("pics.json")) if (here / "cache").exists() else True
