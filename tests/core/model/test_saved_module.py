"""Networks saved and loaded: files that diffusers' own `ModelMixin` reads and writes, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import load_file, save_file
from torch import nn

from pics_cli.core.model.saved_module import SavedModule, keep_arguments


class Ours(SavedModule):
    @keep_arguments
    def __init__(self, width: int, levels: tuple[int, ...] = (1, 2), bias: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(width, len(levels), bias=bias)


class Theirs(ModelMixin, ConfigMixin):  # type: ignore[misc]
    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, width: int, levels: tuple[int, ...] = (1, 2), bias: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(width, len(levels), bias=bias)


def test_files_are_those_of_diffusers(tmp_path: Path) -> None:
    ours = Ours(3, levels=(1, 1, 5))
    assert ours.config == {"width": 3, "levels": (1, 1, 5), "bias": True}
    assert ours.config.levels == (1, 1, 5)
    ours.save_pretrained(tmp_path / "ours")
    theirs = Theirs.from_pretrained(tmp_path / "ours")
    assert torch.equal(theirs.layer.weight, ours.layer.weight)
    theirs.save_pretrained(tmp_path / "theirs")
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        mine, other = ((tmp_path / whose / name).read_bytes() for whose in ("ours", "theirs"))
        notes = rb"  \"(_class_name|_name_or_path)\": .*\n"  # diffusers also notes where it has read the network
        assert mine == other if name.endswith("safetensors") else re.sub(notes, b"", mine) == re.sub(notes, b"", other)
    again = Ours.from_pretrained(tmp_path / "theirs", torch.bfloat16)
    assert again.dtype == torch.bfloat16
    assert not again.training
    assert torch.equal(again.layer.weight, ours.layer.weight.bfloat16())


def test_channels_last_weights_are_saved_as_they_are(tmp_path: Path) -> None:
    class Convolution(SavedModule):
        @keep_arguments
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

    made = Convolution().to(memory_format=torch.channels_last)
    made.save_pretrained(tmp_path)
    assert torch.equal(Convolution.from_pretrained(tmp_path).layer.weight, made.layer.weight)


def test_weights_in_several_files(tmp_path: Path) -> None:
    ours, name = Ours(3), Ours.weights_name
    ours.save_pretrained(tmp_path)
    weights = load_file(tmp_path / name)
    (tmp_path / name).unlink()
    files = {key: f"model-{number}.safetensors" for number, key in enumerate(weights)}
    for key, file in files.items():
        save_file({key: weights[key]}, tmp_path / file)
    (tmp_path / f"{name}.index.json").write_text(json.dumps({"weight_map": files}))
    assert torch.equal(Ours.from_pretrained(tmp_path).layer.weight, ours.layer.weight)
    shutil.copytree(tmp_path, tmp_path / "inside")
    (tmp_path / "inside" / f"{name}.index.json").write_text(json.dumps({"weight_map": {"a": "../model-0.safetensors"}}))
    with pytest.raises(ValueError, match=r"names ../model-0.safetensors, which is no file of its folder"):
        Ours.from_pretrained(tmp_path / "inside")
    (tmp_path / "inside" / f"{name}.index.json").write_text("[]")
    with pytest.raises(ValueError, match="no index of weights"):
        Ours.from_pretrained(tmp_path / "inside")


def test_weights_and_configuration_that_differ(tmp_path: Path) -> None:
    Ours(3).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"width": 4}, r"differ: 1 mismatched keys, such as layer\.weight"),
        ({"bias": False}, r"differ: 1 unexpected keys, such as layer\.bias"),
        ({"depth": 1}, r"config\.json: Ours does not take depth"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message):
            Ours.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"layer.bias": torch.zeros(2)}, tmp_path / Ours.weights_name)
    with pytest.raises(ValueError, match=r"differ: 1 missing keys, such as layer\.weight"):
        Ours.from_pretrained(tmp_path)
