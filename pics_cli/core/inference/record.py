"""What a composite was made from: a record inside its file, and the manifest that gathers the records."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from pics_cli.core.images.output_formats import (
    ENCODINGS,
    SUFFIXES,
    OutputFormat,
    encode_result,
    format_of_file,
    read_packet,
)
from pics_cli.core.images.png_chunks import XMP_KEYWORD, read_chunks
from pics_cli.core.images.stored_image import StoredImage
from pics_cli.core.inference.inputs import SampleFiles
from pics_cli.core.inference.marking import creation_date, make_packet, record_text
from pics_cli.core.inference.mask_region import RegionRule
from pics_cli.core.inference.sample import CompositeOptions, Order
from pics_cli.core.runtime.files import AtomicFile, load_json, open_file
from pics_cli.core.runtime.resumable import identity_differences
from pics_cli.core.runtime.storage import map_files
from pics_cli.errors import BadSample, read_error

if TYPE_CHECKING:  # records are read where there is no torch
    import torch

    from pics_cli.core.model.adapters import Adapter

MANIFEST = "manifest.jsonl"
# Keys that decide the pixels, besides the model and the inputs.
_IDENTITY = ("id", "candidate", "seed", "settings")
_KEYWORD = b"pics\0"
# Parts of a file that a fingerprint reads, spread evenly from its head to its tail, and bytes of each.
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16
# What is fetched of a store's picture at a time for its record alone, which stands at the begin.
_HEAD_BYTES = 1 << 16


class Foreign(Exception):
    """A complete picture without a record of `pics`."""


class Damaged(Exception):
    """A file that is not a complete PNG, JPEG or WebP."""


class _Adapter(msgspec.Struct):
    name: str
    sha256: str
    weight: float


class _Model(msgspec.Struct):
    name: str | None = None
    fingerprint: str | None = None
    adapters: list[_Adapter] = []


class _Record(msgspec.Struct):
    """What readers of a record rely on."""

    id: str | None = None
    candidate: int = 0
    inputs: dict[str, Any] | None = None
    model: _Model | None = None


def composed_name(sample: str, candidate: int, format: OutputFormat = "png") -> str:
    """File name of a composite: as published for the first candidate, numbered for the others."""
    return f"composed_{sample}{f'_{candidate}' if candidate else ''}{SUFFIXES[format]}"


def settings_record(
    options: CompositeOptions,
    order: Order | None,
    dtype: torch.dtype,
    cutout: str | None = None,
    region: RegionRule = "box",
) -> dict[str, Any]:
    """Resolved options as plain data, for the records of pictures and the results of evaluations.

    How references are cut out and masks read is left out where pictures are made of neither, or as earlier ones were.
    """
    from pics_cli.core.model.devices import DTYPES

    settings = asdict(options)
    del settings["seed"]
    precision = next(name for name, kind in DTYPES.items() if kind == dtype)
    settings |= {"order": list(order) if isinstance(order, tuple) else order, "dtype": precision}
    settings |= ({} if cutout is None else {"cutout": cutout}) | ({} if region == "box" else {"region": region})
    return settings


def input_record(files: SampleFiles, hashes: Mapping[str, str]) -> dict[str, Any]:
    """A sample's part of a record: its id, `inputs` (sha256 of files, boxes as numbers) and `files` (their paths)."""
    boxes = {f"box_{k}": list(entry.box) for k, entry in enumerate(files.objects) if entry.box is not None}
    paths = {part: str(path) for part, path in files.parts().items()}
    return {"id": files.id, "inputs": {**hashes, **boxes}, "files": paths}


def model_fingerprint(folder: Path) -> str:
    """16 hex digits over names, sizes and parts of a model folder's files; reading them whole would take too long."""
    digest = hashlib.sha256()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        name = path.relative_to(folder)
        if path.suffix in (".json", ".safetensors") and not any(part.startswith(".") for part in name.parts):
            size = path.stat().st_size
            digest.update(f"{name.as_posix()}\0{size}\0".encode())
            with path.open("rb") as file:
                for k in range(_SAMPLES):
                    file.seek(max(0, size - _SAMPLE_BYTES) * k // (_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def model_record(name: str, fingerprint: str, adapters: Sequence[Adapter] = ()) -> dict[str, Any]:
    """A model's part of a record; its adapters only where there are some."""
    listed = {"adapters": [adapter.record for adapter in adapters]} if adapters else {}
    return {"name": name, "fingerprint": fingerprint, **listed}


def creation_record(format: OutputFormat) -> dict[str, Any]:
    """When a picture is made and how it is written: a part of its record that decides no pixel of the composite."""
    return {"date": creation_date(), "encoding": ENCODINGS[format]}


def write_composite(path: Path, picture: StoredImage, record: Mapping[str, Any], format: OutputFormat = "png") -> None:
    """Write a picture that carries its record, whole or not at all.

    The record stands as JSON in the picture's XMP packet; in a PNG also in a text chunk `pics` before the pixels.

    Args:
        path: of the picture; it exists only once it is finished.
        picture: with its colour profile.
        record: plain data.
        format: of the file.

    Raises:
        BadSample: the format cannot hold the picture or the record; see `encode_result`.
    """
    text = json.dumps(record)
    data = encode_result(picture, format, make_packet(record, text), (b"tEXt", _KEYWORD + text.encode("ascii")))
    with AtomicFile(path) as file:
        file.write(data)


def read_record(path: Path, whole: bool = True) -> dict[str, Any] | None:
    """The record of a picture, None where there is no such file.

    Args:
        path: a PNG, JPEG or WebP, whatever it is called.
        whole: look at all of it, checksums of a PNG included; False: at the record alone.

    Raises:
        Damaged: none of these, cut short, or a checksum that does not fit.
        Foreign: a picture without a record.
    """
    try:
        with open_file(path, -1 if whole else _HEAD_BYTES) as file:
            match format_of_file(file):
                case "png":
                    text = _png_record(file, whole)
                case "jpeg" | "webp":
                    text = record_text(read_packet(file, whole) or b"")
                case None:
                    raise Damaged("no PNG, JPEG or WebP")
            if text is None:
                raise Foreign
            return _parse(text)
    except FileNotFoundError:
        return None
    except BadSample as error:
        raise Damaged(error.detail) from None
    except OSError as error:
        raise read_error(path, error) from None


def changes(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One line for each difference of two records that decides pixels."""
    lines = identity_differences(existing, {key: wanted[key] for key in _IDENTITY})
    old_parts, new_parts = existing.get("inputs") or {}, wanted["inputs"]
    for part in [*old_parts, *(part for part in new_parts if part not in old_parts)]:
        if old_parts.get(part) != new_parts.get(part):
            how = "from another one" if part in new_parts else "with one, this run has none"
            lines.append(f"inputs.{part}: the folder's picture was made {how if part in old_parts else 'without one'}")
    old, new = existing.get("model") or {}, wanted["model"]
    if old.get("fingerprint") != new["fingerprint"]:
        lines.append(f"model: the folder has {_shown(old)}, this run {_shown(new)}")
    if _acting(old) != _acting(new):
        lines.append(f"adapters: the folder has {_shown_adapters(old)}, this run {_shown_adapters(new)}")
    return lines


def write_manifest(
    output: Path, composed: Path, ranks: Mapping[tuple[str, int], Mapping[str, Any]] | None = None
) -> int:
    """Gather the records of all composites of a folder into its manifest, by sample and candidate.

    Args:
        output: folder of the manifest.
        composed: of the composites.
        ranks: what is added to records, by sample and candidate.

    Returns:
        Their number.
    """
    paths = [path for path in composed.glob("composed_*") if path.suffix in SUFFIXES.values()]
    records = []
    for record in map_files(_record_alone, paths):
        if record is not None:
            records.append({**record, **(ranks or {}).get((str(record.get("id")), record.get("candidate", 0)), {})})
    records.sort(key=lambda record: (str(record.get("id")), record.get("candidate", 0)))
    with AtomicFile(output / MANIFEST) as file:
        for record in records:
            file.write((json.dumps(record) + "\n").encode())
    return len(records)


def _record_alone(path: Path) -> dict[str, Any] | None:
    """The record of a picture of which nothing else is looked at; None of one without."""
    with contextlib.suppress(Damaged, Foreign):
        return read_record(path, whole=False) or {}
    return None


def _png_record(file: IO[bytes], whole: bool) -> bytes | None:
    """The text of a PNG's record: of its own chunk, or else of its XMP packet."""
    text = packet = None
    for kind, data in read_chunks(file):
        if kind == b"tEXt" and data.startswith(_KEYWORD) and text is None:
            text = data[len(_KEYWORD) :]
        if kind == b"iTXt" and data.startswith(XMP_KEYWORD) and packet is None:
            # Behind the keyword stand two bytes for compression, which XMP has none of, and two texts, mostly empty.
            packet = data[len(XMP_KEYWORD) + 2 :].split(b"\0", 2)[-1]
        if kind == b"IDAT" and ((text is None and packet is None) or not whole):
            break
    return record_text(packet) if text is None and packet is not None else text


def _shown(model: Mapping[str, Any]) -> str:
    return f"{model.get('name')} ({str(model.get('fingerprint'))[:8]})"


def _acting(model: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What decides pixels of a model's adapters: those of weight 0 do not."""
    return [(one["sha256"], one["weight"]) for one in model.get("adapters", ()) if one["weight"]]


def _shown_adapters(model: Mapping[str, Any]) -> str:
    shown = [f"{one['name']}:{one['weight']:g} ({one['sha256'][:8]})" for one in model.get("adapters", ())]
    return ", ".join(shown) or "none"


def _parse(data: bytes) -> dict[str, Any]:
    try:
        record = load_json(data)
    except ValueError:
        raise Damaged("its record is no JSON") from None
    if not isinstance(record, dict):
        raise Foreign
    try:
        msgspec.convert(record, _Record)
    except msgspec.ValidationError as error:
        raise Damaged(f"its record is not as pics writes it: {error}") from None
    return record
