"""`pics explain`: what a picture was made from, as the picture itself says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pics_cli import console
from pics_cli.errors import PicsError

# What is told of a record, and in which words; objects have rows of their own.
_ROWS = {
    "id": "sample", "candidate": "candidate", "date": "made", "model": "model", "seed": "seed", "settings": "settings",
    "order": "order, back to front", "light": "light", "size": "size", "encoding": "written as", "window": "window",
    "regions": "regions", "unguided": "unguided", "notes": "notes", "kept": "pixels kept in front",
    "changed_outside": "changed outside the regions", "layers": "layers", "seconds": "seconds", "run": "run",
    "versions": "versions",
}  # fmt: skip


def explain(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A picture that pics made.", show_default=False)],
) -> None:
    """Print the record that a result of pics infer carries: model, seed, settings, order, boxes, light, version, date.

    PNG, JPEG and WebP are read, whatever they are called. The record says how the picture was made, not what became of
    it since: other programs keep it when they change pixels. --json prints it as it is.
    """
    from pics_cli.core.inference.record import Damaged, Foreign, read_record

    try:
        record = read_record(file)
    except Foreign:
        raise PicsError(f"{file}: carries no record of pics", "was its metadata removed?") from None
    except Damaged as error:
        raise PicsError(f"{file}: {error}", "pics explain reads results of pics infer") from None
    if record is None:
        raise PicsError(f"{file}: no such file", "such as results/sample/composed/composed_ID.png")
    try:
        console.result(record)
        rows = list(_rows(record))
    except RecursionError:
        raise PicsError(f"{file}: its record is nested too deeply", "pics wrote no such record") from None
    console.table(str(file), rows, only=True)


def _rows(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values; a record may hold anything, for anybody can write one."""
    for key, name in _ROWS.items():
        if record.get(key) not in (None, [], {}):
            yield name, _shown(record[key])
    if isinstance(encoding := record.get("encoding"), dict) and encoding.get("lossless") is False:
        yield "changed by its format", "every pixel may be, outside the regions, too"
    inputs, files = (value if isinstance(value := record.get(key), dict) else {} for key in ("inputs", "files"))
    for part in {**files, **{name: "" for name in inputs if not name.startswith("box_")}}:
        words = [str(files[part])] if part in files else []
        if isinstance(inputs.get(part), str):
            words.append(f"sha256 {inputs[part][:12]}")
        yield part.replace("_", " "), ", ".join(words)
    for k, box in enumerate(boxes if isinstance(boxes := record.get("boxes"), list) else []):
        words = [_shown(box)]
        for key, text in (("cutouts", "cut out by {}"), ("shares", "fills {} of it")):
            if isinstance(values := record.get(key), list) and k < len(values):
                words.append(text.format(values[k]))
        yield f"box {k} (x0, y0, x1, y1)", "; ".join(words)


def _shown(value: object) -> str:
    """Plain data without the signs of JSON: `steps 20, guidance 5.0`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items() if each not in (None, [], {}))
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return str(value)
