"""The parts of a model folder: which there are, how each is loaded and saved, and that nothing of them is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pics_cli.core.files import file_sha256
from pics_cli.core.model.config import Link, ModelConfig
from pics_cli.core.model.control import BackgroundControlNet
from pics_cli.core.model.hub import snapshot
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.errors import PicsError

# What a model folder may name is fixed here: nothing is imported because a file says so.
PARTS: dict[str, Any] = {
    "unet": InteractionUNet,
    "controlnet": BackgroundControlNet,
    "image_encoder": transformers.Dinov2Model,
    "projector": nn.Linear,
    "vae": diffusers.AutoencoderKL,
}
# The command shows its own progress.
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()
PATTERNS = ("*.json", *(f"{name}/*" for name in (*PARTS, "scheduler")))
_PROJECTOR = "model.safetensors"


def load(folder: Path, config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    """Every part and the scheduler, by name.

    Raises:
        PicsError: a part is missing, unreadable or does not fit its configuration.
    """
    found: dict[str, Any] = {}
    for name, kind in PARTS.items():
        place = _linked(name, config.links[name]) if name in config.links else folder / name
        if not place.is_dir():
            raise PicsError(f"{place}: missing, the model folder is not complete", "copy or convert the model again")
        try:
            if name == "projector":
                found[name] = _load_projector(place, config).to(dtype)
            else:
                found[name] = _load_module(kind, place, dtype)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise PicsError(
                f"{place}: cannot be loaded: {str(error).strip().splitlines()[0]}", "copy or convert the model again"
            ) from None
    return {**found, "scheduler": _load_scheduler(folder / "scheduler")}


def _linked(name: str, link: Link) -> Path:
    folder = snapshot(link.source, f"pics.json: links.{name}", [f"{link.folder}/*" if link.folder else "*"])
    place = folder / link.folder
    for file, expected in link.sha256.items():
        if (found := file_sha256(place / file)) != expected:
            raise PicsError(
                f"{place / file}: sha256 {found[:12]}…, but the model was made with {expected[:12]}…",
                f"bring back that version of {link.source}, or convert the model again",
            )
    return place


def _load_module(kind: Any, place: Path, dtype: torch.dtype) -> nn.Module:
    options = {"dtype" if kind is transformers.Dinov2Model else "torch_dtype": dtype}
    module, report = kind.from_pretrained(
        place, output_loading_info=True, use_safetensors=True, local_files_only=True, **options
    )
    faults = {what: report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys") if report[what]}
    if faults:
        shown = "; ".join(
            f"{len(keys)} {what.replace('_', ' ')}, such as {', '.join(map(str, sorted(keys)[:3]))}"
            for what, keys in faults.items()
        )
        raise ValueError(f"weights and configuration differ: {shown}")
    return module


def _load_projector(place: Path, config: ModelConfig) -> nn.Linear:
    weights = load_file(place / _PROJECTOR)
    width = weights["weight"].shape[1]
    projector = nn.Linear(width, config.context_width)
    projector.load_state_dict(weights)
    return projector


def _load_scheduler(place: Path) -> Any:
    try:
        name = diffusers.DDIMScheduler.load_config(place)["_class_name"]
        return getattr(diffusers, name).from_pretrained(place)
    except (OSError, KeyError, AttributeError, ValueError) as error:
        raise PicsError(
            f"{place}: no scheduler: {str(error).strip().splitlines()[0]}", "copy the model again"
        ) from None


def save(name: str, part: nn.Module, folder: Path) -> None:
    """Write one part into its folder."""
    if name == "projector":
        (folder / name).mkdir(exist_ok=True)
        save_file({key: value.contiguous() for key, value in part.state_dict().items()}, folder / name / _PROJECTOR)
    else:
        part.save_pretrained(folder / name)  # type: ignore[operator]


def index(scheduler: Any) -> dict[str, Any]:
    """`model_index.json`: what diffusers' own folders hold, for people and tools that look there."""
    from pics_cli import __version__

    library = {"image_encoder": "transformers", "projector": "torch.nn", "vae": "diffusers"}
    listed = {name: [library.get(name, "pics_cli"), kind.__name__] for name, kind in PARTS.items()}
    return {
        "_class_name": "PicsPipeline",
        "_pics_version": __version__,
        **listed,
        "scheduler": ["diffusers", type(scheduler).__name__],
    }
