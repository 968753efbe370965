"""Manifests of result folders (`manifest.json`): what they were made from, and how two of them differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from pics_cli.core.runtime.files import load_json, read_file
from pics_cli.errors import PicsError, read_error

MANIFEST = "manifest.json"


class _Shard(msgspec.Struct):
    file: str
    block: int
    samples: int
    bytes: int
    sha256: str


class _Bad(msgspec.Struct):
    pictures: dict[str, int]
    records: dict[str, int]


class _BadPicture(msgspec.Struct):
    item: Any
    reason: str
    detail: str


class _Recipe(msgspec.Struct):
    name: str
    shards: dict[str, Any] = {}


class _Manifest(msgspec.Struct):
    """What readers of a manifest rely on; an unfinished build's has less."""

    complete: bool
    pictures: int = 0
    samples: int = 0  # of shards
    boxes: int = 0  # of labels
    made_by: str | None = None  # of labels: annotate
    recipe: _Recipe | None = None
    split: str | None = None
    shards: list[_Shard] = []
    bad: _Bad | None = None
    skipped: dict[str, int] = {}
    skipped_examples: dict[str, list[Any]] = {}
    bad_pictures: list[_BadPicture] | dict[str, int] = []  # of labels: counts by reason


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest, None where it has none.

    Raises:
        PicsError: it exists and cannot be read.
    """
    path = folder / MANIFEST
    try:
        text = read_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise read_error(path, error) from None
    return parse_manifest(text, path)


def parse_manifest(text: bytes, path: Path | str) -> dict[str, Any]:
    """A manifest's contents; `path` names it in messages.

    Raises:
        PicsError: it is not JSON, or not a manifest.
    """
    try:
        data: dict[str, Any] = load_json(text.decode("utf-8"))
    except ValueError as error:
        raise PicsError(
            f"{path}: cannot be read as a manifest: {error}", "move the folder away and build again"
        ) from None
    try:
        manifest = msgspec.convert(data, _Manifest)
        counted = "boxes" if manifest.made_by == "annotate" else "samples"
        if manifest.complete and not {"pictures", counted} <= data.keys():
            raise msgspec.ValidationError(f"it is complete, but has no number of pictures or {counted}")
    except msgspec.ValidationError as error:
        raise PicsError(f"{path}: is no manifest of pics: {error}", "choose another folder") from None
    return data


def differences(
    recorded: Mapping[str, Any], wanted: Mapping[str, Any], words: tuple[str, str] = ("the folder has", "this run")
) -> list[str]:
    """One line for each value in which two trees of plain data differ: `key: the folder has …, this run …`.

    Args:
        recorded, wanted: the trees.
        words: before the value of the one and of the other.
    """
    left, right = dict(_leaves(recorded)), dict(_leaves(wanted))
    lines = []
    for key in [*left, *(key for key in right if key not in left)]:
        old, new = left.get(key, "nothing"), right.get(key, "nothing")
        if old != new and key.endswith(("listing", "head_and_tail")):
            lines.append(f"{key.rpartition('.')[0]}: other files than when the folder was begun")
        # A hash differs because something else does: name that instead.
        elif old != new and not key.endswith("sha256"):
            left_value, right_value = ("nothing" if v == "nothing" else json.dumps(v) for v in (old, new))
            lines.append(f"{key}: {words[0]} {left_value}, {words[1]} {right_value}")
    return lines


def _leaves(data: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(data, Mapping) and data:
        for name, value in data.items():
            yield from _leaves(value, f"{key}.{name}" if key else name)
    else:
        yield key, data
