"""Research checkpoints → model folders: every tensor lands where it belongs, or the user is told why not."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Dinov2Model

from golden import Golden, check_network
from helpers import research
from helpers.research import State
from pics_cli.core.model import converted_folder, describe_folder
from pics_cli.core.model.convert import convert_checkpoint
from pics_cli.core.model.converted_folder import ConversionReport
from pics_cli.core.model.model_card import CONVERSION_FILE
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.weight_files import open_checkpoint, write_safetensors
from pics_cli.errors import PicsError

SMALL: dict[str, Any] = {"head_width": research.HEAD_WIDTH, "encoder_head_width": 16, "image_size": 128}

# Research name → part and name of ours, written by hand from Latent Diffusion's and diffusers' classes.
LANDS = {
    "model.diffusion_model.time_embed.0.weight": ("unet", "time_embedding.linear_1.weight"),
    "model.diffusion_model.input_blocks.0.0.bias": ("unet", "conv_in.bias"),
    "model.diffusion_model.input_blocks.1.0.in_layers.2.weight": ("unet", "down_blocks.0.resnets.0.conv1.weight"),
    "model.diffusion_model.input_blocks.2.0.op.weight": ("unet", "down_blocks.0.downsamplers.0.conv.weight"),
    "model.diffusion_model.input_blocks.3.0.skip_connection.weight": (
        "unet",
        "down_blocks.1.resnets.0.conv_shortcut.weight",
    ),
    "model.diffusion_model.input_blocks.3.1.transformer_blocks.0.gate_q.bias": (
        "unet",
        "down_blocks.1.attentions.0.transformer_blocks.0.gate_q.bias",
    ),
    "model.diffusion_model.middle_block.1.proj_in.weight": ("unet", "mid_block.attentions.0.proj_in.weight"),
    "model.diffusion_model.middle_block.2.emb_layers.1.weight": ("unet", "mid_block.resnets.1.time_emb_proj.weight"),
    "model.diffusion_model.output_blocks.0.0.out_layers.0.weight": ("unet", "up_blocks.0.resnets.0.norm2.weight"),
    "model.diffusion_model.output_blocks.1.2.conv.weight": ("unet", "up_blocks.0.upsamplers.0.conv.weight"),
    "model.diffusion_model.output_blocks.3.1.transformer_blocks.0.attn_bg.to_out.0.weight": (
        "unet",
        "up_blocks.1.attentions.1.transformer_blocks.0.attn_bg.to_out.0.weight",
    ),
    "model.diffusion_model.out.2.weight": ("unet", "conv_out.weight"),
    "control_model.input_hint_block.0.weight": ("controlnet", "controlnet_cond_embedding.conv_in.weight"),
    "control_model.input_hint_block.12.bias": ("controlnet", "controlnet_cond_embedding.blocks.5.bias"),
    "control_model.input_hint_block.14.bias": ("controlnet", "controlnet_cond_embedding.conv_out.bias"),
    "control_model.zero_convs.3.0.weight": ("controlnet", "controlnet_down_blocks.3.weight"),
    "control_model.middle_block_out.0.weight": ("controlnet", "controlnet_mid_block.weight"),
    "first_stage_model.encoder.down.2.block.0.nin_shortcut.weight": (
        "vae",
        "encoder.down_blocks.2.resnets.0.conv_shortcut.weight",
    ),
    "first_stage_model.encoder.down.1.downsample.conv.bias": ("vae", "encoder.down_blocks.1.downsamplers.0.conv.bias"),
    "first_stage_model.decoder.up.3.block.1.conv2.weight": ("vae", "decoder.up_blocks.0.resnets.1.conv2.weight"),
    "first_stage_model.decoder.up.1.upsample.conv.weight": ("vae", "decoder.up_blocks.2.upsamplers.0.conv.weight"),
    "first_stage_model.decoder.up.0.block.0.norm1.weight": ("vae", "decoder.up_blocks.3.resnets.0.norm1.weight"),
    "first_stage_model.decoder.mid.block_2.conv1.bias": ("vae", "decoder.mid_block.resnets.1.conv1.bias"),
    "first_stage_model.decoder.mid.attn_1.norm.weight": ("vae", "decoder.mid_block.attentions.0.group_norm.weight"),
    "first_stage_model.encoder.norm_out.bias": ("vae", "encoder.conv_norm_out.bias"),
    "first_stage_model.post_quant_conv.weight": ("vae", "post_quant_conv.weight"),
    "cond_stage_model.model.blocks.1.ls2.gamma": ("image_encoder", "encoder.layer.1.layer_scale2.lambda1"),
    "cond_stage_model.model.norm.bias": ("image_encoder", "layernorm.bias"),
    "cond_stage_model.model.cls_token": ("image_encoder", "embeddings.cls_token"),
    "cond_stage_model.projector.weight": ("projector", "weight"),
}


def lightning(state: State) -> dict[str, Any]:
    return {"state_dict": state, "global_step": 70, "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(9)}}}]}


@pytest.fixture(scope="module")
def state() -> State:
    return research.checkpoint()


@pytest.fixture(scope="module")
def converted(state: State, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ConversionReport]:
    folder = tmp_path_factory.mktemp("converted")
    torch.save(lightning(state), folder / "last.ckpt")
    return folder / "model", convert_checkpoint(folder / "last.ckpt", folder / "model", **SMALL)


def weights(folder: Path, part: str) -> State:
    (file,) = (folder / part).glob("*.safetensors")
    return load_file(file)


def test_every_tensor_is_accounted_for_once(converted: tuple[Path, ConversionReport], state: State) -> None:
    folder, report = converted
    mapped = [key for keys in report.mapped.values() for key in keys]
    assert sorted([*mapped, *report.dropped]) == sorted(state)
    targets = [(part, ours) for part, keys in report.mapped.items() for names in keys.values() for ours in names]
    assert len(set(targets)) == len(targets)
    for part in report.mapped:
        assert {ours for name, ours in targets if name == part} == set(weights(folder, part))
    written = json.loads((folder / CONVERSION_FILE).read_text())
    assert written["mapped"] == report.mapped
    assert written["dropped"] == report.dropped
    assert written["counts"]["missing"] == 0
    assert all("blend_mlp" in key or why for key, why in report.dropped.items())
    assert {"control_model.input_blocks.0.0.weight", "betas", "model_ema.decay"} < set(report.dropped)


def test_tensors_land_where_they_belong(converted: tuple[Path, ConversionReport], state: State) -> None:
    parts = {name: weights(converted[0], name) for name in converted[1].mapped}
    for theirs, (part, ours) in LANDS.items():
        assert torch.equal(parts[part][ours], state[theirs]), theirs


def test_fused_and_reshaped_tensors(converted: tuple[Path, ConversionReport], state: State) -> None:
    vae = weights(converted[0], "vae")
    # The library's own reading of the names that its files have.
    encoder = Dinov2Model.from_pretrained(converted[0] / "image_encoder", torch_dtype="auto").state_dict()
    for ours, theirs in {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
        conv = state[f"first_stage_model.encoder.mid.attn_1.{theirs}.weight"]
        assert torch.equal(vae[f"encoder.mid_block.attentions.0.{ours}.weight"], conv[:, :, 0, 0])
    block, layer = "cond_stage_model.model.blocks.0", "encoder.layer.0"
    qkv = [encoder[f"{layer}.attention.{name}_proj.weight"] for name in "qkv"]
    assert torch.equal(torch.cat(qkv), state[f"{block}.attn.qkv.weight"])
    halves = [encoder[f"{layer}.mlp.{name}_proj.bias"] for name in ("gate", "up")]
    assert torch.equal(torch.cat(halves), state[f"{block}.mlp.w12.bias"])


def test_converted_model_makes_a_picture(converted: tuple[Path, ConversionReport]) -> None:
    from pics_cli.core.conditioning.network_inputs import prepare_network_inputs

    pipeline = PicsModel.from_pretrained(converted[0])
    assert pipeline.config.trained_steps == 70
    assert (pipeline.config.object_tokens, pipeline.config.context_width) == (257, research.CONTEXT)
    random = np.random.default_rng(0)
    background, reference = (random.integers(0, 256, (90, 120, 3), dtype=np.uint8) for _ in range(2))
    inputs = prepare_network_inputs(background, [(10, 10, 70, 60), (40, 30, 110, 80)], [reference, reference], size=128)
    picture = pipeline([inputs], pipeline.noise(0, "a")[None, None], steps=1)
    assert picture.shape == (1, 1, 128, 128, 3)
    assert picture.std() > 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtype(state: State, tmp_path: Path, dtype: torch.dtype) -> None:
    save_file(state, tmp_path / "a.safetensors")
    report = convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "out", dtype=dtype, **SMALL)
    for part in report.mapped:
        found = weights(tmp_path / "out", part)
        assert {value.dtype for value in found.values()} == {dtype}
        for theirs, (name, ours) in LANDS.items():
            if name == part:
                assert torch.equal(found[ours], state[theirs].to(dtype))


def test_other_files(state: State, tmp_path: Path) -> None:
    """A pickle of before torch 1.6, and DINOv2 in a file of its own."""
    dinov2 = {key.removeprefix("cond_stage_model.model."): value for key, value in state.items() if "l.model." in key}
    rest = {key: value for key, value in state.items() if "cond_stage_model.model." not in key}
    dinov2 = {key: value for key, value in dinov2.items() if not key.startswith("first")}
    torch.save(dinov2, tmp_path / "dinov2.pth")
    torch.save(rest, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(PicsError, match="holds no DINOv2") as told:
        convert_checkpoint(tmp_path / "old.ckpt", tmp_path / "out", **SMALL)
    assert "--dinov2" in str(told.value.hint)
    report = convert_checkpoint(tmp_path / "old.ckpt", tmp_path / "out", dinov2=tmp_path / "dinov2.pth", **SMALL)
    assert "blocks.0.attn.qkv.weight" in report.mapped["image_encoder"]
    both = tmp_path / "both.ckpt"
    torch.save(state, both)
    report = convert_checkpoint(both, tmp_path / "out2", dinov2=tmp_path / "dinov2.pth", **SMALL)
    assert report.dropped["cond_stage_model.model.norm.bias"] == "dinov2.pth was given instead"
    assert torch.equal(
        weights(tmp_path / "out", "image_encoder")["layernorm.bias"],
        weights(tmp_path / "out2", "image_encoder")["layernorm.bias"],
    )


def without(prefix: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if not key.startswith(prefix)}


def also(key: str, *shape: int) -> Callable[[State], State]:
    return lambda state: {**state, key: torch.zeros(shape)}


BROKEN: dict[str, tuple[Callable[[State], State], dict[str, Any], str]] = {
    "unknown at the top": (also("critic.weight", 3), {}, "unknown tensors: critic.weight"),
    "unknown in the UNet": (
        also("model.diffusion_model.input_blocks.1.1.transformer_blocks.1.ff.weight", 3),
        {},
        "unknown tensors: model.diffusion_model.input_blocks.1.1.transformer_blocks.1.ff.weight",
    ),
    "unknown in a residual block": (
        also("control_model.input_blocks.1.0.in_layers.7.weight", 3),
        {},
        "unknown tensors: control_model.input_blocks.1.0.in_layers.7.weight",
    ),
    "unknown in the VAE": (also("first_stage_model.encoder.down.0.attn.0.q.weight", 3), {}, "unknown tensors: first_s"),
    "unknown in DINOv2": (also("cond_stage_model.model.register_tokens", 3), {}, "unknown tensors: cond_stage_model"),
    "unknown in the projector": (also("cond_stage_model.projector.scale", 3), {}, "unknown tensors: cond_stage_model"),
    "missing in the UNet": (
        without("model.diffusion_model.middle_block.1.transformer_blocks.0.gate_q"),
        {},
        "no tensors for: mid_block.attentions.0.transformer_blocks.0.gate_q.weight",
    ),
    "missing for the shape": (
        without("cond_stage_model.model.cls_token"),
        {},
        "cond_stage_model.model.cls_token is missing",
    ),
    "missing downsampling": (without("model.diffusion_model.input_blocks.2."), {}, "tensors of another shape"),
    "other shape": (
        also("control_model.zero_convs.0.0.bias", 31),
        {},
        r"of another shape: control_model.zero_convs.0.0.bias \(31,\) for \(32,\)",
    ),
    "no projector": (without("cond_stage_model.projector"), {}, "lacks projector"),
    "no VAE": (without("first_stage_model"), {}, "lacks vae"),
    "no ControlNet": (without("control_model"), {}, "lacks controlnet"),
    "head width": (lambda state: state, {"head_width": 64}, "head width 64"),
    "encoder head width": (lambda state: state, {"encoder_head_width": 64}, "head width 64"),
    "picture size": (lambda state: state, {"image_size": 100}, "--image-size 100: expected a multiple of 16"),
    "noise schedule": (lambda state: {**state, "betas": torch.linspace(1e-4, 0.02, 1000)}, {}, "betas"),
    "projector of another width": (
        lambda state: (
            {**state, "cond_stage_model.projector.weight": torch.zeros(32, 48)}
            | {"cond_stage_model.projector.bias": torch.zeros(32)}
        ),
        {},
        "context_width is 48 in pics.json, 32 in projector",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_checkpoints_are_named(state: State, tmp_path: Path, name: str) -> None:
    change, options, text = BROKEN[name]
    torch.save(change(state), tmp_path / "a.ckpt")
    with pytest.raises(PicsError, match=text):
        convert_checkpoint(tmp_path / "a.ckpt", tmp_path / "out", **{**SMALL, **options})
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


class Callback:
    """Something that a checkpoint should not hold."""


def write_cut(path: Path, state: State, save: Callable[[State, Path], None]) -> None:
    save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])


NOT_CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda _path: None, "no such file"),
    "a folder": (lambda path: path.mkdir(), "is a folder, expected a file"),
    "a pipe": (os.mkfifo, "is a pipe, expected a file"),
    "text": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "not a checkpoint"),
    "empty": (lambda path: path.write_bytes(b""), "not a checkpoint"),
    "cut zip": (lambda path: write_cut(path, {"a": torch.zeros(9999)}, torch.save), "damaged"),
    "cut safetensors": (lambda path: write_cut(path, {"a": torch.zeros(9999)}, save_file), "damaged"),
    "other zip": (lambda path: path.write_bytes(b"PK\3\4 but nothing else"), "damaged"),
    "broken pickle": (lambda path: path.write_bytes(b"\x80\x02}q"), "damaged"),
    "a whole object": (lambda path: torch.save(Callback(), path), r"object of class [\w.]*Callback"),
    "a whole object, old": (
        lambda path: torch.save({"state_dict": Callback()}, path, _use_new_zipfile_serialization=False),
        r"object of class [\w.]*Callback",
    ),
    "a plain pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "damaged|no tensors"),
    "a list": (lambda path: torch.save([torch.zeros(2)], path), "holds a list"),
    "no tensors": (lambda path: torch.save({"epoch": 3}, path), "holds no tensors"),
}


@pytest.mark.parametrize("name", NOT_CHECKPOINTS)
def test_what_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    write, text = NOT_CHECKPOINTS[name]
    path = tmp_path / "a.ckpt"
    write(path)
    with pytest.raises(PicsError, match=text) as told:
        open_checkpoint(path)
    assert str(path) in told.value.message
    assert told.value.hint


def test_output_that_exists_stays(state: State, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(PicsError, match="exists already"):
        convert_checkpoint(tmp_path / "absent.ckpt", tmp_path / "out")


def test_an_interrupted_conversion_goes_on(
    converted: tuple[Path, ConversionReport], state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the third part; the parts before it are kept, and the end is as without interruption."""
    checkpoint = converted[0].parent / "last.ckpt"
    written = list[Path]()
    real = write_safetensors

    def full(path: Path, *arguments: Any) -> None:
        written.append(path)
        if len(written) == 3:
            raise PicsError("disk full")
        real(path, *arguments)

    monkeypatch.setattr(converted_folder, "write_safetensors", full)
    with pytest.raises(PicsError, match="disk full"):
        convert_checkpoint(checkpoint, tmp_path / "out", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["out.converting"]
    unfinished = tmp_path / "out.converting"
    assert sorted(path.name for path in unfinished.iterdir()) == ["controlnet", CONVERSION_FILE, "unet"]
    (unfinished / "vae.99.tmp").mkdir()  # as a killed process leaves it
    (unfinished / "vae.99.tmp/diffusion_pytorch_model.safetensors.99.tmp").write_bytes(b"half")
    convert_checkpoint(checkpoint, tmp_path / "out", **SMALL)
    assert len(written) == 6, "two parts were there already"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    files = {path.relative_to(tmp_path / "out"): path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files.keys() == {path.relative_to(converted[0]) for path in converted[0].rglob("*") if path.is_file()}
    assert all(path.read_bytes() == (converted[0] / name).read_bytes() for name, path in files.items())


def test_what_no_conversion_wrote_is_kept(converted: tuple[Path, ConversionReport], tmp_path: Path) -> None:
    (tmp_path / "out.converting").mkdir()
    (tmp_path / "out.converting/photographs.txt").write_text("mine")
    with pytest.raises(PicsError, match=r"out\.converting: holds photographs\.txt, but no conversion was begun here"):
        convert_checkpoint(converted[0].parent / "last.ckpt", tmp_path / "out", **SMALL)
    (tmp_path / "out.converting" / CONVERSION_FILE).write_text("[" * 100_000)
    with pytest.raises(PicsError, match=r"out\.converting: holds .*, but no conversion was begun here"):
        convert_checkpoint(converted[0].parent / "last.ckpt", tmp_path / "out", **SMALL)
    assert (tmp_path / "out.converting/photographs.txt").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_another_checkpoint_does_not_go_on(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(state, tmp_path / "a.ckpt")
    torch.save(lightning(state), tmp_path / "b.ckpt")
    monkeypatch.setattr(describe_folder, "model_index", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convert_checkpoint(tmp_path / "a.ckpt", tmp_path / "out", **SMALL)
    monkeypatch.undo()
    convert_checkpoint(tmp_path / "b.ckpt", tmp_path / "out", **SMALL)
    sources = json.loads((tmp_path / "out" / CONVERSION_FILE).read_text())["sources"]
    assert sources["checkpoint"]["name"] == "b.ckpt"


def test_too_little_room(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(state, tmp_path / "a.ckpt")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10_000_000))
    with pytest.raises(PicsError, match=r"0\.0 GB are needed, 0\.0 GB are free") as told:
        convert_checkpoint(tmp_path / "a.ckpt", tmp_path / "out", **SMALL)
    assert "bf16" in str(told.value.hint)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_running_averages(state: State, tmp_path: Path) -> None:
    """As Latent Diffusion keeps them: of what lies under `model.`, by names without dots."""
    averages = {
        "model_ema." + key.removeprefix("model.").replace(".", ""): value + 1
        for key, value in state.items()
        if key.startswith("model.")
    }
    counters = {"model_ema.decay": torch.tensor(0.99), "model_ema.num_updates": torch.tensor(3)}
    torch.save(lightning({**state, **averages, **counters}), tmp_path / "a.ckpt")
    report = convert_checkpoint(tmp_path / "a.ckpt", tmp_path / "plain", **SMALL)
    assert report.reasons["running average of the weights, which --ema takes instead"] == len(averages) + 2
    convert_checkpoint(tmp_path / "a.ckpt", tmp_path / "ema", ema=True, **SMALL)
    plain, ema = weights(tmp_path / "plain", "unet"), weights(tmp_path / "ema", "unet")
    assert all(torch.equal(ema[key], value + 1) for key, value in plain.items())
    controls = [weights(tmp_path / name, "controlnet") for name in ("plain", "ema")]
    assert all(torch.equal(controls[0][key], controls[1][key]) for key in controls[0])
    torch.save(state, tmp_path / "none.ckpt")
    with pytest.raises(PicsError, match=r"--ema: holds no running averages"):
        convert_checkpoint(tmp_path / "none.ckpt", tmp_path / "out", ema=True, **SMALL)


def test_dinov2_beside_a_checkpoint_without_it(state: State, tmp_path: Path) -> None:
    prefix = "cond_stage_model.model."
    torch.save({key: value for key, value in state.items() if not key.startswith(prefix)}, tmp_path / "a.ckpt")
    with pytest.raises(PicsError, match="holds no DINOv2"):
        convert_checkpoint(tmp_path / "a.ckpt", tmp_path / "out", **SMALL)
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    torch.save(own, tmp_path / "dinov2_vitg14_pretrain.pth")
    convert_checkpoint(tmp_path / "a.ckpt", tmp_path / "out", **SMALL)
    assert "dinov2" in json.loads((tmp_path / "out" / CONVERSION_FILE).read_text())["sources"]


def test_command_converts_the_golden_network(pics: Callable[..., Any], shared_data: Path, tmp_path: Path) -> None:
    """Networks and encoder of the golden numbers as one Lightning checkpoint, with an autoencoder of ours."""
    golden = shared_data.parent / "golden"
    state: State = {}
    for name in ("net", "encoder"):
        for key, value in load_file(golden / f"{name}.safetensors").items():
            if key.startswith("weights."):
                state[key.removeprefix("weights.")] = value
    maker = research.Maker()
    research.autoencoder(maker, "first_stage_model.", (32, 32, 64, 64), 1)
    maker.linear("cond_stage_model.projector", 48, 48)  # the golden encoder's is for another width than the networks'
    state |= maker.state
    torch.save(lightning(state), tmp_path / "last.ckpt")
    widths = ("--head-width", 16, "--encoder-head-width", 16)
    words = ("--image-size", 128, "--dtype", "fp32", *widths)
    done = pics("convert", tmp_path / "last.ckpt", tmp_path / "out", *words)
    assert done.returncode == 0, done.stderr
    assert re.search(r"not needed: blend_mlp is never called.* +40\n", done.stdout)
    pipeline = PicsModel.from_pretrained(tmp_path / "out")
    ours = pipeline.unet.state_dict()
    theirs = state["model.diffusion_model.middle_block.1.transformer_blocks.0.gate_q.weight"]
    assert torch.equal(ours["mid_block.attentions.0.transformer_blocks.0.gate_q.weight"], theirs)
    figures = list(check_network(Golden(golden, "net", "cpu"), pipeline))
    assert len(figures) > 10
    assert [figure for figure in figures if not figure.good] == []


def test_dinov2_of_another_size(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.ckpt")
    maker = research.Maker()
    research.dinov2(maker, "", 32, 1)
    torch.save(maker.state, tmp_path / "dinov2_vits14.pth")
    with pytest.raises(PicsError, match="projector takes width 48, image_encoder gives 32") as told:
        convert_checkpoint(tmp_path / "a.ckpt", tmp_path / "out", dinov2=tmp_path / "dinov2_vits14.pth", **SMALL)
    assert "parts of one model" in str(told.value.hint)


def test_command_tells_faults(pics: Callable[..., Any], tmp_path: Path) -> None:
    torch.save({"critic.weight": torch.zeros(3)}, tmp_path / "a.ckpt")
    done = pics("convert", tmp_path / "a.ckpt", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "lacks unet (model.diffusion_model.*)" in done.stderr
    assert "\n\nhint: " in done.stderr
    assert "Traceback" not in done.stderr
