"""The parts of a model without their weights, from configuration files alone: to say what training it would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from pics_cli.core.model.base_models import BASE, DAMAGED, DINOV2, DINOV2_HEAD_WIDTH, copies, read_scheduler
from pics_cli.core.model.config import FILE, Link, ModelConfig
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.hub import is_local, snapshot
from pics_cli.core.model.load_weights import Part, check_image_size, dinov2_options, on_meta
from pics_cli.core.model.model_folder import autoencoder, misfits, quiet
from pics_cli.core.model.new_model import blank_control, fitted, hint_widths, unet_options
from pics_cli.core.model.pixel_autoencoder import PixelAutoencoder
from pics_cli.core.model.small_model import blank_parts, checked, small_config
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.core.model.weight_files import open_checkpoint
from pics_cli.errors import PicsError

_UNET = "unet/config.json"
_ENCODER = "config.json"
# Stable Diffusion 2.1's autoencoder, and DINOv2 ViT-g/14.
_PUBLISHED_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "sample_size": 512,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
_PUBLISHED_ENCODER: dict[str, Any] = {
    "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True, "patch_size": 14,
}  # fmt: skip


class Outline(NamedTuple):
    """A model to be.

    Attributes:
        config: what it means.
        parts: by the names of the model folder, on the meta device.
        words: where the shapes come from.
    """

    config: ModelConfig
    parts: dict[str, nn.Module]
    words: str


def outline(
    base: str | None, dinov2: str | None, shape: Mapping[str, Any] | None, overrides: Mapping[str, Any]
) -> Outline:
    """What a model section of a training recipe describes; nothing is fetched, no weight is read.

    Names of repositories that are neither in `checkpoints/` nor in the hub's cache get the published shape, and `words`
    says so.

    Args:
        base: Stable Diffusion in diffusers' layout, or a model of pics; None: 2.1-base.
        dinov2: folder, repository or original file; None: ViT-g/14.
        shape: values of `SmallShape`: a small new network, whatever the two above are.
        overrides: values of `ModelConfig` that the recipe gives.

    Raises:
        PicsError: a path that does not exist, something else there, or values that do not fit each other.
    """
    if shape is not None:
        config = small_config(shape, overrides)
        return Outline(config, blank_parts(config, shape), "a new network of model.shape")
    name = base or BASE
    place = _find(name, "--base", (FILE, _UNET))
    if place is not None and (place / FILE).is_file():
        return _of_pics(place, overrides)
    return _of_base(name, place, dinov2 or DINOV2, overrides)


def _of_base(name: str, place: Path | None, dinov2: str, overrides: Mapping[str, Any]) -> Outline:
    """Of a model made from Stable Diffusion and DINOv2; see `initial.new_model`."""
    config = checked(overrides)
    if place is None:
        unet = on_meta(lambda: InteractionUNet(tau=config.tau), name)
        vae = on_meta(lambda: diffusers.AutoencoderKL(**_PUBLISHED_VAE, scaling_factor=config.latent_scale), name)
        noise: dict[str, Any] = {}
        words = [f"unet, controlnet, vae as published: {name} is not on this machine"]
    else:
        stock = _stock(diffusers.UNet2DConditionModel, place / "unet")
        options = unet_options(stock.config, place / "unet")
        unet = on_meta(lambda: InteractionUNet(**options, tau=config.tau), str(place))
        vae, noise = _stock(diffusers.AutoencoderKL, place / "vae"), read_scheduler(place / "scheduler")
        words = [f"unet, controlnet, vae of {place}"]
    found = _find(dinov2, "--dinov2", (_ENCODER,))
    encoder = _encoder(found, config.reference_size, dinov2)
    words.append(
        f"image_encoder as published: {dinov2} is not on this machine" if found is None else f"image_encoder of {found}"
    )
    config = checked(asdict(fitted(config, unet, encoder, vae, noise, overrides)))
    check_image_size(config.image_size, config.downsampling, len(_config(unet).block_out_channels))
    parts = {
        "unet": unet,
        "controlnet": blank_control(unet, hint_widths(config.downsampling)),
        "image_encoder": encoder,
        "projector": _projector(encoder, config),
        "vae": vae,
    }
    return Outline(config, parts, "; ".join(words))


def _of_pics(place: Path, overrides: Mapping[str, Any]) -> Outline:
    """Of a model folder of pics."""
    stored = ModelConfig.load(place)
    config = checked(overrides, stored)
    words = [f"configuration of {place}"]
    places: dict[str, Path | None] = {}
    links: Mapping[str, Link] = stored.links  # type: ignore[assignment]  # its keys are names of parts
    for name in ("unet", "controlnet", "image_encoder", "vae"):
        places[name] = place / name
        if name in links:
            link = links[name]
            there = _find(link.source, f"pics.json: links.{name}", (str(Path(link.folder) / "config.json"),))
            places[name] = None if there is None else there / link.folder
            if there is None:
                words.append(f"{name} as published: {link.source} is not on this machine")
    unet, controlnet = (
        _stock(kind, _there(places[name], place, name))
        for name, kind in (("unet", InteractionUNet), ("controlnet", BackgroundControlNet))
    )
    encoder = _encoder(places["image_encoder"], None, "image_encoder")
    parts: dict[str, Any] = {
        "unet": unet,
        "controlnet": controlnet,
        "image_encoder": encoder,
        "projector": _projector(encoder, config),
        "vae": _vae(places["vae"]),
    }
    if faults := misfits(config, **parts):
        raise PicsError("\n".join(f"{place}: {fault}" for fault in faults), "leave these out of the recipe's model")
    return Outline(config, parts, "; ".join(words))


def _find(name: str, flag: str, files: Sequence[str]) -> Path | None:
    """The folder (or original file) that a name stands for, if it is on this machine: one that has any of the files."""
    if is_local(name):
        return Path(name) if Path(name).exists() else snapshot(name, flag, files)  # which says that it is not there
    for path in copies(name):
        if path.exists():
            return path
    repository, _, revision = name.partition("@")
    for file in files:
        kept = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(kept, str):
            return Path(kept).parents[len(Path(file).parts) - 1]
    return None


def _stock(kind: Any, place: Path) -> Any:
    """A module of diffusers' kind from its configuration, without memory."""
    if not (place / "config.json").is_file():
        raise _unreadable(place, FileNotFoundError("config.json is missing"))
    try:
        with quiet():
            return on_meta(lambda: kind.from_config(kind.load_config(place, local_files_only=True)), str(place))
    except DAMAGED as error:
        raise _unreadable(place, error) from None


def _vae(place: Path | None) -> Any:
    if place is None:
        return on_meta(lambda: diffusers.AutoencoderKL(**_PUBLISHED_VAE), "vae")
    try:
        kind = autoencoder(place)
        return PixelAutoencoder.from_pretrained(place) if kind is PixelAutoencoder else _stock(kind, place)
    except DAMAGED as error:
        raise _unreadable(place, error) from None


def _encoder(place: Path | None, size: int | None, name: str) -> Any:
    """DINOv2 for references of `size` pixels; None: as its configuration says."""
    if place is None:
        options: dict[str, Any] = {**_PUBLISHED_ENCODER, "image_size": size or ModelConfig().reference_size}
    elif place.is_file():
        options = dinov2_options(Part(open_checkpoint(place)), DINOV2_HEAD_WIDTH, size or ModelConfig().reference_size)
    else:
        try:
            found = Dinov2Config.from_json_file(place / _ENCODER)
        except DAMAGED as error:
            raise _unreadable(place, error) from None
        options = {**found.to_dict(), **({} if size is None else {"image_size": size})}
    if size is not None and size % options["patch_size"]:
        raise PicsError(
            f"{place or name}: patches of {options['patch_size']} do not divide references of {size} pixels"
        )
    return on_meta(lambda: Dinov2Model(Dinov2Config(**options)), str(place or name))


def _projector(encoder: Any, config: ModelConfig) -> nn.Module:
    return on_meta(lambda: nn.Linear(encoder.config.hidden_size, config.context_width), "projector")


def _config(module: Any) -> Any:
    return module.config


def _there(place: Path | None, folder: Path, name: str) -> Path:
    if place is None:
        raise PicsError(f"{folder}: {name}: lies elsewhere, and not on this machine", "copy the model folder whole")
    return place


def _unreadable(place: Path, error: Exception) -> PicsError:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return PicsError(f"{place}: cannot be read: {why}", "name a folder with a config.json, in diffusers' layout")
