"""Model folders in diffusers' layout: loading and saving the parts."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pics_cli.core.model.config import Link, ModelConfig
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.devices import is_out_of_memory
from pics_cli.core.model.dinov2 import Dinov2Encoder
from pics_cli.core.model.hub import check_hashes, is_local, snapshot
from pics_cli.core.model.image_encoder import Projector
from pics_cli.core.model.load_weights import build_on_meta
from pics_cli.core.model.part_checks import find_mismatches
from pics_cli.core.model.pixel_autoencoder import PixelAutoencoder
from pics_cli.core.model.saved_module import SavedModule, check_weights
from pics_cli.core.model.schedulers import load_scheduler
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.core.runtime.files import apply_umask, load_json, make_folder, read_file, sync_folder
from pics_cli.errors import PicsError, write_error


def check_not_existing(out: Path) -> None:
    """Refuse to overwrite a file or folder.

    Raises:
        PicsError: it exists.
    """
    if out.exists():
        raise PicsError(f"{out}: exists already", "choose another name, or remove it first")


@contextlib.contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary folder to write into: renamed to `out` at the end of the block, removed with its contents on failure.

    Raises:
        PicsError: `out` exists, or it cannot be written.
    """
    check_not_existing(out)
    make_folder(out.absolute().parent)
    folder = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir()
        yield folder
        folder.rename(out)
        sync_folder(out.absolute().parent)
    except OSError as error:
        raise write_error(out, error) from None
    except SafetensorError as error:
        raise PicsError(f"{out}: cannot write: {error}", "is the disk full?") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Classes are fixed: nothing is imported because a file of a model folder names it.
CLASSES: dict[str, type[SavedModule]] = {
    "unet": InteractionUNet,
    "controlnet": BackgroundControlNet,
    "image_encoder": Dinov2Encoder,
    "projector": Projector,
}
PARTS = (*CLASSES, "vae")
# Autoencoders by the class that their configuration names; the first where it names none.
AUTOENCODERS = ("AutoencoderKL", "PixelAutoencoder")
_AGAIN = "copy or convert the model again"


def load_parts(folder: Path, config: ModelConfig, dtype: torch.dtype, weights: bool = True) -> dict[str, Any]:
    """Every part and the scheduler, by name.

    Args:
        folder: the model folder.
        config: its `pics.json`.
        dtype: of the parts.
        weights: False: parts on the meta device, from configuration files alone.

    Raises:
        PicsError: a part is missing or unreadable, or does not fit its configuration, `pics.json` or another part.
    """
    loaded: dict[str, Any] = {}
    for name in (*PARTS, "scheduler"):
        width = loaded["image_encoder"].config.hidden_size if name == "projector" else 0
        loaded[name] = load_part(name, folder, config, dtype, weights, width)
    mismatches = find_mismatches(config, **{name: loaded[name] for name in PARTS})
    if (rescaled := bool(loaded["scheduler"].config.get("rescale_betas_zero_snr"))) != (
        config.noise_schedule == "zero_terminal_snr"
    ):
        mismatches.append(f"noise_schedule is {config.noise_schedule}, rescale_betas_zero_snr {rescaled} in scheduler")
    if mismatches:
        raise PicsError("\n".join(f"{folder}: {mismatch}" for mismatch in mismatches), _AGAIN)
    return loaded


def load_part(
    name: str, folder: Path, config: ModelConfig, dtype: torch.dtype, weights: bool = True, encoder_width: int = 0
) -> Any:
    """One part, or the scheduler; arguments and errors as those of `load_parts`.

    Args:
        name: of the part.
        folder, config, dtype, weights: of the model.
        encoder_width: what the projector takes.
    """
    links: Mapping[str, Link] = config.links  # type: ignore[assignment]  # its keys are names of parts
    part_folder = _linked(name, links[name], weights) if name in links else folder / name
    if not part_folder.is_dir():
        raise PicsError(f"{part_folder}: missing, the model folder is not complete", _AGAIN)
    try:
        for path in part_folder.iterdir():
            if path.exists() and not path.is_dir() and not path.is_file():
                raise ValueError(f"{path.name} is no file")  # the libraries would wait for what a pipe holds
        if name == "scheduler":
            return load_scheduler(part_folder)
        if name == "projector":
            return _load_projector(part_folder, encoder_width, config.context_width, dtype, weights)
        kind = autoencoder_class(part_folder) if name == "vae" else CLASSES[name]
        return load_module(kind, part_folder, dtype, weights)
    except Exception as error:  # the libraries raise anything on damaged files
        if isinstance(error, PicsError) or is_out_of_memory(error):  # the caller has advice on memory
            raise
        why = " ".join(str(error).split()) or type(error).__name__
        raise PicsError(f"{part_folder}: cannot be loaded: {why}", _AGAIN) from None


def autoencoder_class(part_folder: Path) -> Any:
    """The class that the configuration of an autoencoder names.

    Raises:
        OSError, ValueError: it cannot be read, or names another.
    """
    name = load_json(read_file(part_folder / "config.json")).get("_class_name", AUTOENCODERS[0])
    if name not in AUTOENCODERS:
        raise ValueError(f"config.json names the class {name}, expected one of {', '.join(AUTOENCODERS)}")
    if name == PixelAutoencoder.__name__:
        return PixelAutoencoder
    import diffusers

    return diffusers.AutoencoderKL


@contextlib.contextmanager
def _quiet_diffusers() -> Iterator[None]:
    """Silence its loggers and progress bars; what matters in their messages becomes an error."""
    import diffusers

    logger = diffusers.utils.logging
    logger.disable_progress_bar()
    before = logger.get_verbosity()
    logger.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logger.set_verbosity(before)


def _linked(name: str, link: Link, weights: bool) -> Path:
    """Where a linked part lies. Repositories are not downloaded on a model's word: whoever made it named them."""
    if is_local(link.source):
        part_folder = snapshot(link.source, f"pics.json: links.{name}", []) / link.folder
    else:
        from pics_cli.core.model.hub_client import cached_snapshot

        cached = cached_snapshot(link.source, str(Path(link.folder) / "config.json"))
        if cached is None:
            repository, _, revision = link.source.partition("@")
            files = f"--include '{Path(link.folder) / '*'}'" + (f" --revision {revision}" if revision else "")
            raise PicsError(
                f"pics.json: links.{name}: the part lies in the repository {link.source}, which is not on this machine",
                f"models do not download others by themselves; if you trust it: hf download {repository} {files}",
            )
        part_folder = cached / link.folder
    if weights:
        check_hashes(part_folder, link.sha256)
    return part_folder


def load_module(kind: Any, part_folder: Path, dtype: torch.dtype, weights: bool = True) -> nn.Module:
    """A module of this package or diffusers.

    Args:
        kind: its class.
        part_folder: folder of its configuration and weights.
        dtype: of the weights.
        weights: all of them are read; False: float32 on the meta device, from the configuration alone.

    Raises:
        ValueError: weights and configuration differ; or whatever the library raises where files are damaged.
    """
    if kind is PixelAutoencoder:
        return PixelAutoencoder.from_pretrained(part_folder)
    if not weights:
        ours = issubclass(kind, SavedModule)
        here = {} if ours else {"local_files_only": True}  # else a folder that is missing is asked for on the hub
        with contextlib.nullcontext() if ours else _quiet_diffusers():
            return build_on_meta(lambda: kind.from_config(kind.load_config(part_folder, **here)), str(part_folder))
    if "quantization_config" in load_json(read_file(part_folder / "config.json")):
        raise ValueError("config.json asks for quantised weights, which are not supported")
    if issubclass(kind, SavedModule):
        module: nn.Module = kind.from_pretrained(part_folder, dtype)
        return module
    with _quiet_diffusers():
        module, report = kind.from_pretrained(
            part_folder,
            output_loading_info=True,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            torch_dtype=dtype,
        )
    check_weights(**{what: report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys")})
    return module


def _load_projector(part_folder: Path, width: int, context_width: int, dtype: torch.dtype, weights: bool) -> nn.Module:
    if (part_folder / "config.json").is_file():
        return load_module(Projector, part_folder, dtype, weights)
    # As pics saved it before it was a model of diffusers: weights alone.
    if not weights:
        return build_on_meta(lambda: Projector(width, context_width), str(part_folder))
    state = load_file(part_folder / "model.safetensors")
    out, inside = state["weight"].shape
    projector = Projector(inside, out)
    projector.load_state_dict(state)
    return nn.Module.to(projector, dtype)


def save_part(name: str, part: nn.Module, folder: Path) -> None:
    """Write one part into its folder."""
    part.save_pretrained(folder / name)  # type: ignore[operator]
    for path in (folder / name).glob("*.safetensors"):
        apply_umask(path)
    config = load_json(read_file(folder / name / "config.json"))
    if config.pop("_name_or_path", None) is not None:  # where it was loaded from: a path of this machine
        (folder / name / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
