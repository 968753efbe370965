"""A new model for training: Stable Diffusion, DINOv2, and new layers that have no effect at first.

Initial weights:

* The UNet's residual blocks, self- and cross-attentions and feed-forwards are Stable Diffusion's. The interaction
  experts are new; `attn_bg`'s output projection is zero, so that they add nothing at first.
* The ControlNet is a copy of the UNet's encoder and middle, experts included. Its zero convolutions and the last
  convolution of the hint's embedding are zero.
* The projector is new. The cross-attention was trained on the text encoder's tokens, which leave a layer norm with
  about unit variance; so its weights are drawn with the deviation that gives contexts unit variance. DINOv2's tokens
  leave a layer norm, too: their mean square is that of its weight plus that of its bias.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pics_cli.core.model.base_models import (
    BASE_FILES,
    DEFAULT_BASE,
    DEFAULT_DINOV2,
    DINOV2_FILES,
    PUBLISHED_DINOV2,
    PUBLISHED_VAE,
    find_base,
    find_dinov2,
    find_local_base_model,
    load_base_module,
    load_dinov2,
    read_scheduler_config,
)
from pics_cli.core.model.config import Link, ModelConfig, checked_config
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.dinov2 import Dinov2Encoder
from pics_cli.core.model.hub import is_local, record_hashes
from pics_cli.core.model.image_encoder import Projector
from pics_cli.core.model.load_weights import build_on_meta, check_image_size
from pics_cli.core.model.part_checks import config_of_parts, vae_downsampling
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.schedulers import NOISE_KEYS, published_scheduler
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.errors import PicsError, abbreviate

logger = logging.getLogger(__name__)

HINT_WIDTHS = (16, 32, 96, 256)

EXPERT_LAYERS = re.compile(r"\.transformer_blocks\.0\.(norm2g|gate_q|norm_c|k_proj|v_proj|norm2b|attn_bg)\.")
_CONTROL = re.compile(r"controlnet_|light_head")
_STARTS_AT_ZERO = re.compile(r"\.attn_bg\.to_out\.0\.|controlnet_(down_blocks|mid_block|cond_embedding\.conv_out)\.")
_SHARED = (
    "block_out_channels", "layers_per_block", "attention_levels", "head_width", "context_width", "norm_groups", "tau",
)  # fmt: skip
_OTHER_BASE = "start from Stable Diffusion 2.1-base"


def new_model(
    base: str = DEFAULT_BASE,
    dinov2: str = DEFAULT_DINOV2,
    *,
    config: ModelConfig | None = None,
    keep: Collection[str] = (),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> PicsModel:
    """A new model, ready for training.

    Names that are not paths are searched in `checkpoints/` of the working directory before the hub is asked.

    Args:
        base: Stable Diffusion in diffusers' layout: folder, or repository as `owner/name` or `owner/name@revision`.
        dinov2: folder or repository in transformers' layout, or the original DINOv2 file.
        config: what does not follow from the base model (picture size, hint, reference size, …).
        keep: names of values of `config` that the base's do not replace: prediction_type, latent_scale.
        seed: of the new layers.
        dtype: of all parts.

    Returns:
        The model; its `config` has the base's shapes, and `config.links` the base's autoencoder, which need not be
        saved again.

    Raises:
        PicsError: a base model is not found, of another kind, or has changed since its first use.
    """
    import diffusers

    config = config or ModelConfig()
    logger.info("checking that %s and %s are the files of their first use", base, dinov2)
    base_files, dinov2_files = find_base(base), find_dinov2(dinov2)
    logger.info("reading %s", base_files.path)
    stock = load_base_module(diffusers.UNet2DConditionModel, base_files.path / "unet")
    vae = load_base_module(diffusers.AutoencoderKL, base_files.path / "vae")
    noise = read_scheduler_config(base_files.path / "scheduler")
    logger.info("reading %s", dinov2_files.path)
    encoder = load_dinov2(dinov2_files.path, config.reference_size)
    for source in (base_files, dinov2_files):
        record_hashes(source.name, source.sha256)
    downsampling = vae_downsampling(vae)
    check_image_size(config.image_size, downsampling, len(stock.config.block_out_channels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        folder = base_files.path / "unet"
        options = {**unet_options(stock.config, folder), "tau": config.tau}
        blank = build_on_meta(lambda: InteractionUNet(**options), str(folder))
        unet: Any = fill_module(blank, stock.state_dict(), EXPERT_LAYERS, str(folder))
        controlnet = controlnet_from_unet(unet, hint_widths(downsampling))
        projector = new_projector(encoder, unet.config.context_width)
    hashes = base_files.sha256.items()
    vae_hashes = {name.removeprefix("vae/"): sha256 for name, sha256 in hashes if name.startswith("vae/")}
    links: dict[Any, Link] = {"vae": Link(source=base_files.name, folder="vae", sha256=vae_hashes)}
    config = replace(config_of_parts(config, unet, encoder, vae, noise, keep), trained_steps=0, links=links)
    config = replace(config, base_models=[name for name in (base, dinov2) if not is_local(name)])
    scheduler = published_scheduler(**{key: noise[key] for key in NOISE_KEYS if key in noise})
    for module in (unet, controlnet, encoder, projector, vae):
        nn.Module.to(module, dtype)  # diffusers' own `to` warns of layers kept in float32, though there are none
    return PicsModel(config, unet, controlnet, encoder, projector, vae, scheduler)


def blank_model(base: str, dinov2: str, overrides: Mapping[str, Any]) -> tuple[PicsModel, str]:
    """The model that `new_model` would give, on the meta device: from configuration files alone, without the hub.

    Args:
        base, dinov2: as `new_model` takes them. What is not on this machine gets the published shape.
        overrides: values of `ModelConfig`.

    Returns:
        The model, and a line on where its shapes come from.

    Raises:
        PicsError: a path that does not exist or holds something else, or values that do not fit each other.
    """
    import diffusers

    config, noise = checked_config(overrides), dict[str, Any]()
    base_files = find_local_base_model(base, "--base", BASE_FILES, "unet/config.json")
    dinov2_files = find_local_base_model(dinov2, "--dinov2", DINOV2_FILES, "config.json")
    if base_files is None:
        origin = f"unet, controlnet, vae as published: {base} is not on this machine"
        unet: Any = build_on_meta(lambda: InteractionUNet(tau=config.tau), base)
        of_vae = {**PUBLISHED_VAE, "scaling_factor": config.latent_scale}
        vae: Any = build_on_meta(lambda: diffusers.AutoencoderKL(**of_vae), base)
    else:
        origin, folder = f"unet, controlnet, vae of {base_files}", base_files / "unet"
        options = unet_options(load_base_module(diffusers.UNet2DConditionModel, folder, weights=False).config, folder)
        unet = build_on_meta(lambda: InteractionUNet(**options, tau=config.tau), str(base_files))
        vae = load_base_module(diffusers.AutoencoderKL, base_files / "vae", weights=False)
        noise = read_scheduler_config(base_files / "scheduler")
    if dinov2_files is None:
        origin += f"; image_encoder as published: {dinov2} is not on this machine"
        published = {**PUBLISHED_DINOV2, "image_size": config.reference_size}
        encoder: Any = build_on_meta(lambda: Dinov2Encoder(**published), dinov2)
    else:
        origin += f"; image_encoder of {dinov2_files}"
        encoder = load_dinov2(dinov2_files, config.reference_size, weights=False)
    config = checked_config(asdict(config_of_parts(config, unet, encoder, vae, noise, overrides)))
    check_image_size(config.image_size, config.downsampling, len(unet.config.block_out_channels))
    controlnet: Any = blank_controlnet(unet, hint_widths(config.downsampling))
    projector: Any = build_on_meta(lambda: Projector(encoder.config.hidden_size, config.context_width), "projector")
    scheduler = published_scheduler()
    return PicsModel(config, unet, controlnet, encoder, projector, vae, scheduler, device="meta"), origin


def unet_options(config: Any, folder: Path) -> dict[str, Any]:
    """Arguments of `InteractionUNet`, but for τ, from the configuration of diffusers' UNet in the folder.

    Raises:
        PicsError: its heads are not of one width.
    """
    widths, levels = config.block_out_channels, [kind.startswith("CrossAttn") for kind in config.down_block_types]
    # What the configuration calls attention_head_dim is the number of heads, of all levels or of each.
    given_heads = config.num_attention_heads or config.attention_head_dim
    heads = [given_heads] * len(widths) if isinstance(given_heads, int) else list(given_heads)
    used = [*levels[:-1], True]  # the middle has attention, too
    head_widths = {width / count for width, count, attention in zip(widths, heads, used, strict=True) if attention}
    if len(head_widths) != 1 or not next(iter(head_widths)).is_integer():
        raise PicsError(
            f"{folder / 'config.json'}: attention_head_dim: {given_heads} heads at widths {list(widths)}, expected "
            "heads of one width at all levels",
            f"{_OTHER_BASE}, whose heads are 64 wide",
        )
    return {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": tuple(widths),
        "layers_per_block": config.layers_per_block,
        "attention_levels": tuple(levels),
        "head_width": int(head_widths.pop()),
        "context_width": config.cross_attention_dim,
        "norm_groups": config.norm_num_groups,
    }


def hint_widths(downsampling: int) -> tuple[int, ...]:
    """Widths of the hint's convolutions, which halve the picture as often as the autoencoder does."""
    halvings = downsampling.bit_length() - 1
    return (*HINT_WIDTHS[: min(halvings, 3)], *HINT_WIDTHS[-1:] * max(halvings - 2, 1))


def blank_controlnet(
    unet: Any, widths: Sequence[int], hint_channels: int = 4, estimates_light: bool = False
) -> nn.Module:
    """The ControlNet of a UNet's shape, on the meta device; `widths`: of the hint's convolutions."""
    shape = {key: value for key, value in unet.config.items() if key in _SHARED}
    return build_on_meta(
        lambda: BackgroundControlNet(hint_channels, tuple(widths), **shape, estimates_light=estimates_light),
        "controlnet",
    )


def controlnet_from_unet(
    unet: Any, widths: Sequence[int], hint_channels: int = 4, estimates_light: bool = False
) -> Any:
    """A copy of the UNet's encoder with new zero convolutions and a new embedding of the hint."""
    controlnet = blank_controlnet(unet, widths, hint_channels, estimates_light)
    expected = controlnet.state_dict().keys()
    copied = {key: value.clone() for key, value in unet.state_dict().items() if key in expected}
    return fill_module(controlnet, copied, _CONTROL, "controlnet")


def fill_module(module: nn.Module, state: Mapping[str, Tensor], new: re.Pattern[str], where: str) -> nn.Module:
    """Give a module on the meta device its weights: those of the state, and random ones for the new layers.

    Args:
        module: on the meta device; changed in place.
        state: tensors by name.
        new: pattern of names that may be missing from the state.
        where: start of error messages.

    Raises:
        PicsError: the state does not fit the module.
    """
    expected = module.state_dict()
    differences = {
        "unknown": [key for key in state if key not in expected],
        "missing": [key for key in expected if key not in state and not new.search(key)],
    }
    if listed := "; ".join(f"{what} {abbreviate(keys)}" for what, keys in differences.items() if keys):
        raise PicsError(f"{where}: not Stable Diffusion's UNet: {listed}", _OTHER_BASE)
    try:
        # Transformers whose projections are convolutions are the same as with linear layers.
        reshaped = {key: value.reshape(expected[key].shape) for key, value in state.items()}
        module.load_state_dict(reshaped, strict=False, assign=True)
    except RuntimeError as error:
        raise PicsError(f"{where}: {str(error).splitlines()[-1].strip()}", _OTHER_BASE) from None
    for name, layer in module.named_modules():
        uninitialized = [key for key, value in layer.named_parameters(prefix=name, recurse=False) if value.is_meta]
        if uninitialized:
            layer.to_empty(device="cpu", recurse=False)
            layer.reset_parameters()
        for key, value in layer.named_parameters(prefix=name, recurse=False):
            if key in uninitialized and _STARTS_AT_ZERO.search(key):
                nn.init.zeros_(value)
    return module


def new_projector(encoder: Any, width: int) -> Projector:
    """A projector of random weights that gives contexts of unit variance for the encoder's tokens."""
    norm = encoder.layernorm
    mean_square = float((norm.weight.detach().square() + norm.bias.detach().square()).mean())
    projector = Projector(encoder.config.hidden_size, width)
    nn.init.normal_(projector.weight, std=1 / math.sqrt(mean_square * encoder.config.hidden_size))
    nn.init.zeros_(projector.bias)
    return projector
