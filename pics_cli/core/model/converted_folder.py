"""The model folder that a research checkpoint becomes: written tensor by tensor, resumed after an interruption."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.describe_folder import describe_folder
from pics_cli.core.model.key_mapping import KeyMapping
from pics_cli.core.model.load_weights import CheckpointPart
from pics_cli.core.model.model_card import CONVERSION_FILE, write_card
from pics_cli.core.model.model_folder import AUTOENCODERS, atomic_folder
from pics_cli.core.model.saved_module import SavedModule
from pics_cli.core.model.schedulers import published_scheduler
from pics_cli.core.model.weight_files import write_safetensors
from pics_cli.core.runtime.files import load_json, make_folder, read_file, sync_folder, write_json
from pics_cli.core.runtime.locks import single_writer
from pics_cli.core.runtime.progress import Progress
from pics_cli.errors import PicsError, write_error

logger = logging.getLogger(__name__)

# Of a folder that is being written: what comes behind its name, and the lock in it.
UNFINISHED, _LOCK = ".converting", ".lock"


@dataclass
class ConversionReport:
    """How every tensor of a checkpoint was used."""

    mapped: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """Part → research name → names in the model folder."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Research name → why it is not needed."""

    @property
    def reasons(self) -> Counter[str]:
        """Number of dropped tensors by reason."""
        return Counter(self.dropped.values())


class MappedPart(NamedTuple):
    """A part of a checkpoint: its tensors, their places in the module, and the module on the meta device."""

    part: CheckpointPart
    mapping: KeyMapping
    module: nn.Module


def write_converted(
    out: Path,
    entries: Mapping[str, MappedPart],
    config: ModelConfig,
    dtype: torch.dtype,
    facts: Mapping[str, Any],
    report: ConversionReport,
    progress: Progress,
) -> None:
    """Write the model folder, whole or not at all; parts of an interrupted conversion of the same files are kept.

    Args:
        out: the model folder, which does not exist; `OUT.converting` until it is complete.
        entries: the parts, by name.
        config: of the model.
        dtype: of the weights written.
        facts: what tells this conversion from others.
        report: how every tensor is used.
        progress: counts tensors.

    Raises:
        PicsError: too little room; `OUT.converting` holds what no conversion wrote, or another process writes there.
    """
    counts = {name: len(keys) for name, keys in report.mapped.items()}
    counted = {"counts": {**counts, "dropped": len(report.dropped), "missing": 0}, "missing": []}
    record = {**facts, **counted, "dropped": report.dropped, "mapped": report.mapped}
    progress.total = sum(len(entry.mapping.sources) for entry in entries.values())
    folder = out.with_name(out.name + UNFINISHED)
    resumed = _read_record(folder) == record
    left = [name for name in entries if not (resumed and (folder / name).is_dir())]
    make_folder(out.absolute().parent, "choose another OUT")
    needed, free = sum(_bytes(entries[name], dtype) for name in left), shutil.disk_usage(out.absolute().parent).free
    if needed > free:
        raise PicsError(
            f"{out.absolute().parent}: {needed / 1e9:,.1f} GB are needed, {free / 1e9:,.1f} GB are free on this disk",
            "make room or choose another OUT; --dtype bf16 needs half of what fp32 does",
        )
    make_folder(folder, "choose another OUT")
    with _explained(folder), single_writer(folder, _LOCK):
        _clear(folder, keep=set(entries) - set(left))
        write_json(folder / CONVERSION_FILE, record)
        for name, entry in entries.items():
            if name not in left:
                progress.done += len(entry.mapping.sources)
                progress.done_before += len(entry.mapping.sources)
                continue
            millions = _bytes(entry, dtype) / dtype.itemsize / 1e6
            logger.info("%s: %d tensors, %s million parameters", name, counts[name], f"{millions:,.1f}")
            with atomic_folder(folder / name) as part_folder:
                _write_part(entry, part_folder, dtype, progress)
        scheduler = published_scheduler()
        scheduler.save_pretrained(folder / "scheduler")
        describe_folder(folder, config, type(scheduler).__name__, AUTOENCODERS[0])
        write_card(folder)
    with _explained(out):
        folder.rename(out)
        sync_folder(out.absolute().parent)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # the libraries write configurations themselves
        raise write_error(path, error) from None


def _read_record(folder: Path) -> Any:
    """What an unfinished conversion was made from; None where nothing says so."""
    try:
        return load_json(read_file(folder / CONVERSION_FILE))
    except (OSError, ValueError):
        return None


def _clear(folder: Path, keep: set[str]) -> None:
    """Remove what an earlier conversion left, but for its lock and the parts that are kept.

    Raises:
        PicsError: nothing says that a conversion wrote it.
    """
    found = [path for path in folder.iterdir() if path.name != _LOCK]
    if found and _read_record(folder) is None:
        raise PicsError(
            f"{folder}: holds {found[0].name}, but no conversion was begun here", "choose another OUT, or move it away"
        )
    for path in found:
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _bytes(entry: MappedPart, dtype: torch.dtype) -> int:
    return sum(value.numel() for value in entry.module.state_dict().values()) * dtype.itemsize


def _write_part(entry: MappedPart, folder: Path, dtype: torch.dtype, progress: Progress) -> None:
    """Configuration and weights of a part, tensor by tensor."""
    part, sources = entry.part, entry.mapping.sources
    expected = {key: tuple(value.shape) for key, value in entry.module.state_dict().items()}
    shapes = {key: source.shape(part, expected.get(key, part[source.key])) for key, source in sources.items()}

    def read(key: str) -> torch.Tensor:
        progress.done += 1
        return sources[key].read(part.read(sources[key].key), shapes[key])

    module: Any = entry.module
    module.save_config(folder)
    kind = type(module) if isinstance(module, SavedModule) else SavedModule  # diffusers' have that name, too
    write_safetensors(folder / kind.weights_name, shapes, dtype, read)
