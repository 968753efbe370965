"""Adapters on a model: what they add to the weights, held against diffusers and PEFT, and files that are none."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.loaders import PeftAdapterMixin
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.adapters import make_adapter
from pics_cli.core.inference.record import model_fingerprint
from pics_cli.core.model.adapters import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    AdapterChoice,
    load_adapter,
    parse_adapter,
    warn_of_other_base,
)
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.errors import PicsError


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapters") / "a", tiny_model)


def state(model: PicsModel) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": value for part in ("unet", "controlnet")
        for name, value in model.parts[part].state_dict().items()
    }  # fmt: skip


def loaded(model: Path, *choices: AdapterChoice, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return state(PicsModel.from_pretrained(model, dtype=dtype, adapters=list(map(load_adapter, choices))))


def test_weights_are_those_of_the_formula(tiny_model: Path, adapter: Path) -> None:
    """W + weight · alpha / rank · B A in float64 NumPy; every other tensor bit for bit as it was."""
    base, changed = loaded(tiny_model), loaded(tiny_model, AdapterChoice(adapter, 0.5))
    tensors = load_file(adapter / WEIGHTS_FILE)
    names = {name.partition(".lora_")[0] for name in tensors}
    assert len(names) == 12 * (7 + 3)  # blocks of the UNet: two of the encoder, the middle, four of the decoder
    for name, value in changed.items():
        target = name.removesuffix(".weight")
        if target in names:
            a, b = (tensors[f"{target}.lora_{letter}.weight"].double().numpy() for letter in "AB")
            expected = base[name].double().numpy() + 0.5 * 8 / 4 * b @ a
            np.testing.assert_allclose(value.numpy(), expected, rtol=0, atol=1e-6)
            assert np.abs(expected - base[name].numpy()).max() > 0.1
        else:
            assert torch.equal(value, base[name]), name


def test_diffusers_reads_it_alike(tiny_model: Path, tmp_path: Path) -> None:
    """Its own loader and merging, where alpha is the rank, which is all that its format says."""
    folder = make_adapter(tmp_path / "a", tiny_model, alpha=4.0)
    ours, model = loaded(tiny_model, AdapterChoice(folder)), PicsModel.from_pretrained(tiny_model)
    for part in ("unet", "controlnet"):
        network: Any = model.parts[part]
        network.__class__ = type("Network", (type(network), PeftAdapterMixin), {})
        network.load_lora_adapter(folder, weight_name=WEIGHTS_FILE, prefix=part, adapter_name="a")
        network.fuse_lora()
        network.unload_lora()
    theirs = state(model)
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-6)


def test_weight_0_changes_no_bit_and_two_are_their_sum(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    other = make_adapter(tmp_path / "b", tiny_model, rank=2, alpha=1.0, seed=1, ends=("attn2.to_v",))
    base = loaded(tiny_model)
    without = loaded(tiny_model, AdapterChoice(adapter, 0.0), AdapterChoice(other, 0.0))
    assert all(torch.equal(value, base[name]) for name, value in without.items())
    first, second = (loaded(tiny_model, choice) for choice in (AdapterChoice(adapter), AdapterChoice(other, -2.0)))
    both = loaded(tiny_model, AdapterChoice(adapter), AdapterChoice(other, -2.0))
    for name, value in both.items():
        torch.testing.assert_close(value, first[name] + second[name] - base[name], rtol=0, atol=1e-5)
    assert any(not torch.equal(value, first[name]) for name, value in both.items())


def test_half_precision_is_rounded_once(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    """The sum in float32, however many there are, and not a sum of rounded changes."""
    choices = [AdapterChoice(make_adapter(tmp_path / f"{seed}", tiny_model, seed=seed), 0.01) for seed in range(3)]
    base = loaded(tiny_model, dtype=torch.bfloat16)
    changes = [loaded(tiny_model, choice) for choice in choices]
    exact = loaded(tiny_model)
    ours = loaded(tiny_model, *choices, dtype=torch.bfloat16)
    different = 0
    for name, value in ours.items():
        if not torch.equal(value, base[name]):
            total = sum((change[name].double() - exact[name].double() for change in changes), base[name].double())
            error = (value.double() - torch.as_tensor(total)).abs()
            assert (error <= 2.0**-8 * torch.as_tensor(total).abs() + 1e-6).all()
            different += 1
    assert different > 50


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", AdapterChoice(Path("a"))),
        ("a/b:0.8", AdapterChoice(Path("a/b"), 0.8)),
        ("a:-4", AdapterChoice(Path("a"), -4)),
        ("a:.5", AdapterChoice(Path("a"), 0.5)),
        ("there:x", AdapterChoice(Path("there:x"))),
        ("there:x:2", AdapterChoice(Path("there:x"), 2)),
    ],
)
def test_path_and_weight(text: str, expected: AdapterChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there:x").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_adapter(text) == expected


@pytest.mark.parametrize("weight", ["4.1", "-5", "nan", "inf", "strong", ""])
def test_weights_out_of_range(weight: str) -> None:
    with pytest.raises(PicsError, match=rf"--lora a:{weight}: weight: got {weight}, expected a number from -4 to 4"):
        parse_adapter(f"a:{weight}")


def edit(**values: Any) -> Callable[[Path], None]:
    """Change values of `adapter.json`."""

    def change(folder: Path) -> None:
        path = folder / CONFIG_FILE
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def tensors(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    """Change the tensors."""

    def run(folder: Path) -> None:
        found = load_file(folder / WEIGHTS_FILE)
        change(found)
        save_file(found, folder / WEIGHTS_FILE)

    return run


def make_pipe(path: Path) -> None:
    """A pipe into which nobody writes, in place of a file."""
    path.unlink()
    os.mkfifo(path)


MIDDLE = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
BAD: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: (folder / CONFIG_FILE).unlink(), "no adapter (adapter.json is missing)"),
    (lambda folder: (folder / WEIGHTS_FILE).unlink(), "pytorch_lora_weights.safetensors: cannot read: no such file"),
    (lambda folder: (folder / CONFIG_FILE).write_text("no"), "adapter.json: not the description of an adapter: "),
    (lambda folder: (folder / CONFIG_FILE).write_text("[]"), "adapter.json: not the description of an adapter: "),
    (
        lambda folder: (folder / CONFIG_FILE).write_text("[" * 100_000),
        "adapter.json: not the description of an adapter: ",
    ),
    (lambda folder: make_pipe(folder / CONFIG_FILE), "adapter.json: cannot read: is a pipe, expected a file"),
    (lambda folder: make_pipe(folder / WEIGHTS_FILE), "safetensors: cannot read: is a pipe, expected a file"),
    (edit(rank="4"), "adapter.json: not the description of an adapter: "),
    (edit(rank=0), "adapter.json: rank: got 0, expected at least 1"),
    (edit(version=2), "adapter.json: version 2 is newer than this pics knows (1)"),
    (edit(rank=5), ".lora_A.weight is [4, 48], but the rank is 5"),
    (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"x" * 99), "pytorch_lora_weights.safetensors: unreadable: "),
    (tensors(lambda found: found.clear()), "holds no tensor"),
    (tensors(lambda found: found.pop(f"{MIDDLE}.lora_A.weight")), f"{MIDDLE}.lora_A.weight is missing"),
    (tensors(lambda found: found.update(loha=torch.zeros(1))), "loha is no tensor of an adapter"),
]


@pytest.mark.parametrize(("change", "text"), BAD)
def test_what_is_no_adapter(tiny_model: Path, tmp_path: Path, change: Callable[[Path], Any], text: str) -> None:
    folder = make_adapter(tmp_path / "a", tiny_model, ends=("attn2.to_k",))
    change(folder)
    with pytest.raises(PicsError) as caught:
        load_adapter(AdapterChoice(folder))
    assert text in caught.value.message
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message
    assert (caught.value.exit_code, bool(caught.value.hint)) == (2, True)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(PicsError, match=r"--lora .*/none: no such folder"):
        load_adapter(AdapterChoice(tmp_path / "none"))


FOREIGN: list[tuple[Callable[[dict[str, Tensor]], Any], str]] = [
    (
        lambda found: found.update({f"{MIDDLE}.lora_A.weight": torch.zeros(4, 99)}),
        f"{MIDDLE}.lora_A.weight is [4, 99], expected [4, 48]",
    ),
    (
        lambda found: found.update({f"{MIDDLE}.lora_B.weight": torch.zeros(99, 4)}),
        f"{MIDDLE}.lora_B.weight is [99, 4], expected [64, 4]",
    ),
    (
        lambda found: found.update(
            {f"unet.mid_block.nothing.lora_{letter}.weight": torch.zeros(4, 4) for letter in "AB"}
        ),
        "this one has no unet.mid_block.nothing",
    ),
    (
        lambda found: found.update({f"unet.conv_in.lora_{letter}.weight": torch.zeros(4, 4) for letter in "AB"}),
        "unet.conv_in of this one is no projection",
    ),
]


@pytest.mark.parametrize(("change", "text"), FOREIGN)
def test_of_another_model(
    tiny_model: Path, adapter: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], text: str
) -> None:
    """Which tensor, and its shapes; the model is left as it was, also by the adapters that would have fitted."""
    folder = make_adapter(tmp_path / "a", tiny_model, ends=("attn2.to_k",))
    tensors(change)(folder)
    model = PicsModel.from_pretrained(tiny_model)
    before = {name: value.clone() for name, value in state(model).items()}
    with pytest.raises(PicsError) as caught:
        model.load_adapters([load_adapter(AdapterChoice(adapter)), load_adapter(AdapterChoice(folder))])
    assert caught.value.message == f"--lora {folder}: made for another model: {text}"
    assert caught.value.hint == f"name the model that it was trained on: {tiny_model}"
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


def test_another_model_of_the_same_shape_is_warned_of(
    tiny_model: Path, adapter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fingerprint = model_fingerprint(tiny_model)
    read = load_adapter(AdapterChoice(adapter))
    warn_of_other_base([read], str(tiny_model), fingerprint)
    assert caplog.messages == []
    caplog.set_level(logging.WARNING, logger="pics_cli")
    warn_of_other_base([read], "other", "0" * 16)
    (line,) = caplog.messages
    assert f"was trained on {tiny_model} ({fingerprint[:8]}), not on other (00000000)" in line
