"""A research checkpoint → a model folder: part by part, every tensor accounted for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.converted_folder import ConversionReport, MappedPart, write_converted
from pics_cli.core.model.dinov2 import Dinov2Encoder
from pics_cli.core.model.hub import DINOV2_FILE
from pics_cli.core.model.image_encoder import Projector
from pics_cli.core.model.key_mapping import map_dinov2_keys, map_projector_keys, map_unet_keys, map_vae_keys
from pics_cli.core.model.load_weights import (
    CheckpointPart,
    build_on_meta,
    check_image_size,
    dinov2_options,
    mapping_errors,
    network_options,
    vae_options,
)
from pics_cli.core.model.model_folder import check_not_existing
from pics_cli.core.model.part_checks import config_of_parts, find_mismatches, vae_downsampling
from pics_cli.core.model.schedulers import published_scheduler
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.core.model.weight_files import Checkpoint, open_checkpoint
from pics_cli.core.runtime.files import fingerprint
from pics_cli.core.runtime.progress import Progress
from pics_cli.errors import PicsError, abbreviate

PREFIXES = {
    "unet": "model.diffusion_model.",
    "controlnet": "control_model.",
    "vae": "first_stage_model.",
    "image_encoder": "cond_stage_model.model.",
    "projector": "cond_stage_model.projector.",
}
_AVERAGES = "model_ema."
_WRONG_NETWORK = "is it a checkpoint of the research code's PICS network?"
_SCHEDULE = r"betas|(sqrt_|log_)?(one_minus_)?(recip_|recipm1_)?alphas_cumprod(_prev)?|posterior_\w+|lvlb_weights"
_NOT_NEEDED = {
    _SCHEDULE: "noise schedule: the model folder holds it in scheduler/",
    r"scale_factor": "scale of the latent: the model folder holds it in pics.json",
    r"control_scales(\..*)?": "scales of the ControlNet's residuals: all 1",
    r"model_ema\..*": "running average of the weights, which --ema takes instead",
    r"logvar|(loss|metrics?|lpips|perceptual_loss)(\..*|_.*)?": "training loss and metrics",
    r"cond_stage_model\.image_(mean|std)": "ImageNet's mean and deviation, which are constants",
}


def convert_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    dinov2: Path | None = None,
    dtype: torch.dtype = torch.float32,
    ema: bool = False,
    head_width: int = 64,
    encoder_head_width: int = 64,
    image_size: int = 512,
    reference_size: int = 224,
    progress: Progress | None = None,
) -> ConversionReport:
    """Convert a checkpoint of the research code.

    Its tensors are read and written one by one: memory holds one of them. Parts are written into `OUT.converting`,
    which becomes `out` when all are there; after an interruption the same call goes on with the part it was at.

    Args:
        checkpoint: safetensors or torch file; of a Lightning checkpoint its `state_dict` is taken.
        out: the model folder; must not exist.
        dinov2: original DINOv2 file, used instead of one in the checkpoint; None: where the checkpoint has none, the
            file `dinov2_vitg14_pretrain.pth` beside it.
        dtype: of the weights written.
        ema: take the running averages of weights instead of the weights, where the checkpoint has them.
        head_width, encoder_head_width: of the networks' and DINOv2's attention heads; not in the weights.
        image_size: S; not in the weights either.
        reference_size: side of the reference pictures, to which DINOv2's position table is resampled.
        progress: counts tensors.

    Raises:
        PicsError: `out` exists or cannot be written; the checkpoint cannot be read, lacks a part or a tensor, or has
            an unknown one; too little room on the disk. Nothing is there of `out` then.
    """
    check_not_existing(out)
    report = ConversionReport()
    source = open_checkpoint(checkpoint)
    if ema:
        source = _with_averages(source, report)
    if dinov2 is None and not CheckpointPart(source, PREFIXES["image_encoder"]):
        beside = checkpoint.with_name(DINOV2_FILE)
        dinov2 = beside if beside.is_file() else None
    encoder = source if dinov2 is None else open_checkpoint(dinov2)
    parts = _find_parts(source, encoder, report)
    scale = float(source.read("scale_factor")) if "scale_factor" in source.shapes else ModelConfig.latent_scale
    entries = _map_parts(parts, head_width, encoder_head_width, reference_size, image_size, scale)
    if errors := [
        line
        for name, (part, mapping, module) in entries.items()
        for line in mapping_errors(name, module, mapping, part)
    ]:
        raise PicsError("\n".join(errors), _WRONG_NETWORK)
    config = _config(entries, image_size, reference_size, source.steps or 0)
    _check_schedule(source)
    for name, (part, mapping, _) in entries.items():
        report.mapped[name] = {}
        for key, tensor_source in mapping.sources.items():
            report.mapped[name].setdefault(part.prefix + tensor_source.key, []).append(key)
        report.dropped.update({part.prefix + key: why for key, why in mapping.dropped.items()})
    files = {"checkpoint": checkpoint, "dinov2": dinov2}
    fingerprints = {name: {"name": path.name, **fingerprint(path)} for name, path in files.items() if path is not None}
    facts = {"sources": fingerprints, "dtype": str(dtype).removeprefix("torch."), "ema": ema}
    write_converted(out, entries, config, dtype, facts, report, progress or Progress())
    return report


def _with_averages(source: Checkpoint, report: ConversionReport) -> Checkpoint:
    """The checkpoint with its running averages in the place of the weights, as Latent Diffusion keeps them.

    Averages are of what lies under `model.`; their names lack that and every dot.
    """
    averages = {
        key: average
        for key in source.shapes
        if key.startswith("model.")
        and (average := _AVERAGES + key.removeprefix("model.").replace(".", "")) in source.shapes
    }
    if not averages:
        raise PicsError(
            f"{source.path}: --ema: holds no running averages of weights ({_AVERAGES}*)",
            "leave out --ema: it then gives the weights themselves",
        )
    report.dropped.update(dict.fromkeys(averages, "its running average was taken instead"))
    shapes = {key: source.shapes[averages.get(key, key)] for key in source.shapes if key not in averages.values()}
    return replace(source, shapes=shapes, read=lambda key: source.read(averages.get(key, key)))


def _find_parts(source: Checkpoint, encoder: Checkpoint, report: ConversionReport) -> dict[str, CheckpointPart]:
    """The parts in the checkpoint; a tensor outside all parts must be a known one that is not needed."""
    parts = {name: CheckpointPart(source, prefix) for name, prefix in PREFIXES.items()}
    unknown = []
    for key in source.shapes:
        if reason := next((why for pattern, why in _NOT_NEEDED.items() if re.fullmatch(pattern, key)), None):
            report.dropped[key] = reason
        elif not key.startswith(tuple(PREFIXES.values())):
            unknown.append(key)
    report.dropped.update(dict.fromkeys(source.other_entries, "not a tensor"))
    if encoder is not source:
        prefix = PREFIXES["image_encoder"]
        replaced = (prefix + key for key in parts["image_encoder"])
        report.dropped.update(dict.fromkeys(replaced, f"{encoder.path.name} was given instead"))
        parts["image_encoder"] = CheckpointPart(encoder, prefix) or CheckpointPart(encoder)
    empty = [f"{name} ({PREFIXES[name]}*)" for name, part in parts.items() if not part]
    if empty and empty[0].startswith("image_encoder"):
        raise PicsError(
            f"{source.path}: holds no DINOv2 ({PREFIXES['image_encoder']}*)",
            f"name the original file, which the research code was started from: pics convert … --dinov2 {DINOV2_FILE}; "
            "beside the checkpoint it is found without the flag",
        )
    if empty:
        beginnings = ", ".join(sorted({key.partition(".")[0] for key in source.shapes})[:8])
        raise PicsError(
            f"{source.path}: lacks {', '.join(empty)}; its tensors begin with {beginnings}",
            "a complete checkpoint of the research code is needed, not one of its parts",
        )
    if not any(".gate_q." in key for key in parts["unet"]):
        raise PicsError(
            f"{source.path}: has no interaction blocks ({PREFIXES['unet']}….gate_q.*): another project's network, such "
            "as AnyDoor's, whose parts have the same names",
            "name a checkpoint of RyanHangZhou/PICS",
        )
    if unknown:
        raise PicsError(f"{source.path}: unknown tensors: {abbreviate(unknown)}", _WRONG_NETWORK)
    return parts


def _map_parts(
    parts: dict[str, CheckpointPart],
    head_width: int,
    encoder_head_width: int,
    reference_size: int,
    image_size: int,
    scale: float,
) -> dict[str, MappedPart]:
    """For each part its module on the meta device, and the sources of the module's tensors."""
    import diffusers

    unet, controlnet, vae, encoder, projector = (parts[name] for name in PREFIXES)
    of_vae = {**vae_options(vae), "scaling_factor": scale, "sample_size": image_size}
    of_encoder = dinov2_options(encoder, encoder_head_width, reference_size)
    build: dict[str, Callable[[], nn.Module]] = {
        "unet": lambda: InteractionUNet(**network_options(unet, head_width)),
        "controlnet": lambda: BackgroundControlNet(**network_options(controlnet, head_width)),
        "vae": lambda: diffusers.AutoencoderKL(**of_vae),
        "image_encoder": lambda: Dinov2Encoder(**of_encoder),
        "projector": lambda: Projector(in_features=projector["weight"][1], out_features=projector["weight"][0]),
    }
    modules = {name: build_on_meta(build[name], f"{part.checkpoint.path}: {name}") for name, part in parts.items()}
    grid = reference_size // of_encoder["patch_size"]
    mappings = {
        "unet": map_unet_keys(unet),
        "controlnet": map_unet_keys(controlnet),
        "vae": map_vae_keys(vae),
        "image_encoder": map_dinov2_keys(encoder, grid),
        "projector": map_projector_keys(projector),
    }
    return {name: MappedPart(part, mappings[name], modules[name]) for name, part in parts.items()}


def _config(entries: dict[str, MappedPart], image_size: int, reference_size: int, steps: int) -> ModelConfig:
    """The model's configuration; checks that the parts fit each other."""
    modules: dict[str, Any] = {name: entry.module for name, entry in entries.items()}
    unet, vae = modules["unet"], modules["vae"]
    downsampling = vae_downsampling(vae)
    check_image_size(image_size, downsampling, len(unet.config.block_out_channels))
    chosen = ModelConfig(
        image_size=image_size, downsampling=downsampling, reference_size=reference_size, trained_steps=steps
    )
    config = config_of_parts(chosen, unet, modules["image_encoder"], vae)
    if mismatches := find_mismatches(config, **modules):
        path = entries["unet"].part.checkpoint.path
        raise PicsError("\n".join(f"{path}: {line}" for line in mismatches), "are its parts of one model?")
    return config


def _check_schedule(source: Checkpoint) -> None:
    """Check that a noise schedule in the checkpoint is the published one."""
    if "betas" not in source.shapes:
        return
    betas, published = source.read("betas").double(), published_scheduler().betas.double()
    if betas.shape != published.shape or not torch.allclose(betas, published, rtol=1e-3, atol=0):
        raise PicsError(
            f"{source.path}: betas: {len(betas)} steps from {betas[0]:.5g} to {betas[-1]:.5g}, expected the published "
            f"noise schedule of {len(published)} from {published[0]:.5g} to {published[-1]:.5g}"
        )
