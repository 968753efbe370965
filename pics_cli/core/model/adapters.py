"""Adapters (LoRA; Hu et al., ICLR 2022): small changes of a model's projections, in files of their own.

W ← W + weight · (alpha / rank) · B A, with A [rank, in] and B [out, rank]. Tensors are named as diffusers names those
of a LoRA: `unet.….attn2.to_k.lora_A.weight`. They are added to the weights once, when a model is loaded: a model with
adapters is as fast as one without, and is compiled and offloaded alike.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from pics_cli.core.runtime.files import apply_umask, load_json, open_file, write_json
from pics_cli.core.runtime.storage import is_address, location
from pics_cli.errors import PicsError, read_error

logger = logging.getLogger(__name__)

CONFIG_FILE = "adapter.json"
# diffusers' name, so that its own loaders find it.
WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
VERSION = 1
# Strongest weight that can be meant: an adapter at 4 times what it was trained at is noise.
MAX_WEIGHT = 4.0
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+|nan|inf)", re.IGNORECASE)
_TENSOR = re.compile(r"((?:unet|controlnet)\..+)\.lora_([AB])\.weight")
_HINT = "name the folder that pics train wrote: --lora LOGS/mine/adapter"


@dataclass(frozen=True)
class AdapterConfig:
    """What stands in `adapter.json`.

    Attributes:
        rank: of every pair of matrices.
        alpha: they are scaled by alpha / rank.
        target_modules: ends of the names of the projections that have one.
        base: what the user called the model that it was trained on.
        base_fingerprint: see `model_fingerprint`.
        trained_steps: optimizer steps.
        recipe_hash: of the training recipe.
        pics: version that wrote it.
        version: of the format.
    """

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    base: str
    base_fingerprint: str
    trained_steps: int
    recipe_hash: str
    pics: str
    version: int = VERSION


class AdapterChoice(NamedTuple):
    """An adapter that is asked for: its folder, and how strongly it acts (1: as trained)."""

    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class Adapter:
    """An adapter that was read.

    Attributes:
        name: as the user gave it.
        weight: how strongly it acts.
        config: its `adapter.json`.
        tensors: by name, on the CPU.
        sha256: of its two files, `adapter.json` before the weights.
    """

    name: str
    weight: float
    config: AdapterConfig
    tensors: Mapping[str, Tensor]
    sha256: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """Plain data for the records of pictures and results."""
        return {"name": self.name, "sha256": self.sha256, "weight": self.weight}

    def pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """A and B by the name of the projection, `part.module`."""
        names = {match[1] for match in map(_TENSOR.fullmatch, self.tensors) if match}
        a, b = (f"{{}}.lora_{letter}.weight" for letter in "AB")
        return {name: (self.tensors[a.format(name)], self.tensors[b.format(name)]) for name in sorted(names)}


def parse_adapter(text: str) -> AdapterChoice:
    """Read `PATH[:WEIGHT]`; the path may be the address of a store.

    Raises:
        PicsError: a weight that is no number, or out of range.
    """
    path, colon, weight = text.rpartition(":")
    if not colon or (not _NUMBER.fullmatch(weight) and (is_address(text) or Path(text).exists())):
        return AdapterChoice(location(text))
    return AdapterChoice(location(path), check_weight(weight, f"--lora {text}"))


def check_weight(weight: str | float, where: str) -> float:
    """The weight of an adapter.

    Raises:
        PicsError: no number, or out of range.
    """
    try:
        value = float(weight)
    except ValueError:
        value = float("nan")
    if not -MAX_WEIGHT <= value <= MAX_WEIGHT:
        raise PicsError(
            f"{where}: weight: got {weight}, expected a number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}",
            "1 is as it was trained, 0 without it, 0.5 half of it",
        )
    return value


def save_adapter(folder: Path, config: AdapterConfig, tensors: Mapping[str, Tensor]) -> None:
    """Write an adapter into an empty folder, in float32."""
    path = folder / WEIGHTS_FILE
    save_file({name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}, path)
    apply_umask(path)
    write_json(folder / CONFIG_FILE, asdict(config))


def load_adapter(choice: AdapterChoice) -> Adapter:
    """Read an adapter.

    Raises:
        PicsError: no such folder, no adapter, or a damaged one.
    """
    folder, where = choice.path, f"--lora {choice.path}"
    if not folder.exists():
        raise PicsError(f"{where}: no such folder", _HINT)
    if not (folder / CONFIG_FILE).exists():
        raise PicsError(f"{where}: no adapter ({CONFIG_FILE} is missing)", _HINT)
    contents = []
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        try:
            with open_file(folder / name) as file:
                contents.append(file.read())
        except OSError as error:
            raise read_error(folder / name, error, "copy the adapter again") from None
    config = _parse_config(folder / CONFIG_FILE, contents[0])
    try:
        tensors = load(contents[1])
    except SafetensorError as error:
        raise PicsError(f"{folder / WEIGHTS_FILE}: unreadable: {error}", "copy the adapter again") from None
    if problem := next(_problems(tensors, config.rank), None):
        raise PicsError(f"{folder / WEIGHTS_FILE}: {problem}", "was it written by pics train?")
    digest = sha256(contents[0] + contents[1]).hexdigest()
    return Adapter(str(choice.path), choice.weight, config, tensors, digest)


def merge_adapters(parts: Mapping[str, nn.Module], adapters: Sequence[Adapter]) -> None:
    """Add adapters to the weights of a model: summed up in float32, and rounded once to the weights' own precision.

    Args:
        parts: of the model, by name, or some of them; changed in place, and untouched bit for bit by adapters of weight
            0.
        adapters: their order does not matter but for rounding.

    Raises:
        PicsError: one of them does not fit; then the model is unchanged.
    """
    targets: dict[str, nn.Linear] = {}
    for adapter in adapters:
        for name, (a, b) in adapter.pairs().items():
            if name.partition(".")[0] in parts:
                targets[name] = _target(parts, adapter, name, a, b)
    acting = [(adapter, adapter.pairs()) for adapter in adapters if adapter.weight]
    with torch.no_grad():
        for name, layer in targets.items():
            scaled = [
                (adapter.weight * adapter.config.alpha / adapter.config.rank, *pairs[name])
                for adapter, pairs in acting
                if name in pairs
            ]
            if scaled:
                change = sum(factor * (b.float() @ a.float()) for factor, a, b in scaled)
                layer.weight.copy_(layer.weight.float() + torch.as_tensor(change).to(layer.weight.device))


def warn_of_other_base(adapters: Sequence[Adapter], name: str, fingerprint: str) -> None:
    """Warn of adapters that were trained on another model of the same shape, where they may do anything."""
    for adapter in adapters:
        config = adapter.config
        if config.base_fingerprint != fingerprint:
            logger.warning(
                "--lora %s: was trained on %s (%s), not on %s (%s): expect less of it",
                adapter.name, config.base, config.base_fingerprint[:8], name, fingerprint[:8],
            )  # fmt: skip


def _parse_config(path: Path, content: bytes) -> AdapterConfig:
    try:
        version = load_json(content).get("version")
        if isinstance(version, int) and version > VERSION:
            raise PicsError(
                f"{path}: version {version} is newer than this pics knows ({VERSION})", "update pics: pip install -U"
            )
        config = TypeAdapter(AdapterConfig).validate_json(content, strict=True)
    except (ValidationError, ValueError, AttributeError) as error:
        problem = (
            f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}" if isinstance(error, ValidationError) else error
        )
        raise PicsError(f"{path}: not the description of an adapter: {problem}", _HINT) from None
    if config.rank < 1:
        raise PicsError(f"{path}: rank: got {config.rank}, expected at least 1", "copy the adapter again")
    return config


def _problems(tensors: Mapping[str, Tensor], rank: int) -> Iterator[str]:
    """What is wrong with the tensors of an adapter."""
    if not tensors:
        yield "holds no tensor"
    for name, value in sorted(tensors.items()):
        match = _TENSOR.fullmatch(name)
        if match is None:
            yield f"{name} is no tensor of an adapter"
            continue
        other = f"{match[1]}.lora_{'B' if match[2] == 'A' else 'A'}.weight"
        if other not in tensors:
            yield f"{other} is missing"
        shape = list(value.shape)
        if len(shape) != 2 or shape[0 if match[2] == "A" else 1] != rank:
            yield f"{name} is {shape}, but the rank is {rank}"


def _target(parts: Mapping[str, nn.Module], adapter: Adapter, name: str, a: Tensor, b: Tensor) -> nn.Linear:
    """The projection that a pair of matrices belongs to."""
    part, _, module = name.partition(".")
    where = f"--lora {adapter.name}"
    hint = f"name the model that it was trained on: {adapter.config.base}"
    try:
        layer = parts[part].get_submodule(module)
    except AttributeError:
        raise PicsError(f"{where}: made for another model: this one has no {name}", hint) from None
    if not isinstance(layer, nn.Linear):
        raise PicsError(f"{where}: made for another model: {name} of this one is no projection", hint)
    rank = adapter.config.rank
    for letter, found, expected in (("A", a, [rank, layer.in_features]), ("B", b, [layer.out_features, rank])):
        if list(found.shape) != expected:
            raise PicsError(
                f"{where}: made for another model: {name}.lora_{letter}.weight is {list(found.shape)}, "
                f"expected {expected}",
                hint,
            )
    return layer
