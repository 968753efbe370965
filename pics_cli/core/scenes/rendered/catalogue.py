"""What a folder of raw material holds: models, panoramas and photographs, and which of three pools each is in."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pics_cli.core.recipes.sources import RenderedPool
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.errors import PicsError, abbreviate, read_error

MODEL_SUFFIXES, HDRI_SUFFIXES, PHOTO_SUFFIXES = (".obj", ".glb", ".sh3f"), (".exr", ".hdr"), (".jpg", ".jpeg", ".png")
# Shares of the pools val and test; train has the rest.
_HELD_OUT_SHARE = 0.15
# Categories of a catalogue whose models are fixed to a building, or shine.
_NOT_OBJECTS = ("doors", "windows", "light", "staircase")
# Licences that a catalogue may state for its models to be used.
_OPEN_LICENCE = re.compile(r"public domain|cc.?0|creative commons (zero|(3\.0 |4\.0 )?attribution)|cc.by[ -]\d", re.I)
_CLOSED_LICENCE = re.compile(r"sharealike|share alike|non.?commercial|no.?deriv|by-(sa|nc|nd)", re.I)
_CATALOGUE = "PluginFurnitureCatalog.properties"
_ENTRY = re.compile(r"(\w+)#(\d+)\s*=\s*(.*)")
_MORE = "free ones: polyhaven.com, ambientcg.com; models also as libraries of Sweet Home 3D (.sh3f)"

T = TypeVar("T")


@dataclass(frozen=True)
class ModelEntry:
    """A 3D model and what a catalogue says of it.

    Attributes:
        name: unique and the same on every machine: its path in the folder of models.
        path: the file, or the archive that holds it.
        member: its path inside the archive; empty where it is a file of its own.
        category: its class, in lower case.
        size: width, depth and height in centimetres; None where no catalogue gives it.
        turn: rows of the rotation matrix that sets it upright (y up), 9 numbers; None where it stands upright.
    """

    name: str
    path: Path
    member: str
    category: str
    size: tuple[float, float, float] | None = None
    turn: tuple[float, ...] | None = None


def find_models(folder: Path, bad: BadRecords) -> list[ModelEntry]:
    """Models of a folder tree, by name; those that a catalogue calls fixed, flat or not free are passed over.

    Raises:
        PicsError: there is no such folder, or not one model in it.
    """
    models: list[ModelEntry] = []
    for path in _files(folder, MODEL_SUFFIXES):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() == ".sh3f":
            models += _read_archive(path, name, bad)
        else:
            words = re.sub(r"[\W\d_]+", " ", path.stem).strip().lower()
            models.append(ModelEntry(name, path, "", words or path.parent.name.lower()))
    return _required(models, folder, MODEL_SUFFIXES, "3D models")


def find_pictures(folder: Path, suffixes: Sequence[str], what: str) -> list[Path]:
    """Panoramas or photographs, as `what` says, of a folder tree.

    Raises:
        PicsError: there is no such folder, or none in it.
    """
    return _required(list(_files(folder, suffixes)), folder, suffixes, what)


def pool_of(items: Sequence[tuple[str, T]], pool: RenderedPool, what: str) -> list[T]:
    """The items, pairs of name and value, that belong to a pool.

    The names, in the order of their sha256, are cut into test, val and train: the first 15 % of them, but at least
    one, the next 15 %, and the rest. A pool therefore depends on the names alone.

    Raises:
        PicsError: there are fewer than three.
    """
    if len(items) < 3:
        names = abbreviate([name for name, _ in items])
        raise PicsError(
            f"only {len(items)} {what} ({names}): train, val and test share none, so at least 3 are needed", _MORE
        )
    ranked = sorted(items, key=lambda item: hashlib.sha256(item[0].encode()).digest())
    held_out = max(1, round(_HELD_OUT_SHARE * len(items)))
    start, stop = {"test": (0, held_out), "val": (held_out, 2 * held_out), "train": (2 * held_out, None)}[pool]
    return [value for _, value in ranked[start:stop]]


def _required(found: list[T], folder: Path, suffixes: Sequence[str], what: str) -> list[T]:
    if not found:
        raise PicsError(f"{folder}: no {what} in it (*{', *'.join(suffixes)})", _MORE)
    return found


def _files(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise PicsError(f"folder {folder} {what}", "name the folder around models, hdris and grounds with --raw DIR")
    try:
        paths = sorted(folder.rglob("*"))
    except OSError as error:
        raise read_error(folder, error) from None
    for path in paths:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            yield path


def _read_archive(path: Path, name: str, bad: BadRecords) -> list[ModelEntry]:
    """The models of a Sweet Home 3D library (`.sh3f`): a zip with a catalogue in Java's properties format."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            text = archive.read(_CATALOGUE).decode("latin-1")
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        bad.extend("unreadable_archive", [f"{name}: {error}"])
        return []
    head = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and "#" not in line.split("=", 1)[0])
    licence = head.get("license", "")
    if not _OPEN_LICENCE.search(licence) or _CLOSED_LICENCE.search(licence):
        bad.extend("licence", [f"{name}: {licence or 'none stated'}; CC0 and CC BY are used"])
        return []
    entries: dict[int, dict[str, str]] = {}
    for line in text.splitlines():
        if match := _ENTRY.match(line):
            entries.setdefault(int(match[2]), {})[match[1]] = match[3].strip()
    models = []
    for number, entry in sorted(entries.items()):
        member = entry.get("model", "").lstrip("/")
        if member not in members or ".." in PurePosixPath(member).parts:
            bad.extend("missing_model", [f"{name}: model#{number}={member} is not in it"])
        elif _is_object(entry):
            models.append(_entry_of(path, name, member, entry))
    return models


def _is_object(entry: dict[str, str]) -> bool:
    """Whether a catalogue's entry is a thing that stands on the ground by itself."""
    category = entry.get("category", "").lower()
    fixed = any(word in category for word in _NOT_OBJECTS) or entry.get("doorOrWindow") == "true"
    return not fixed and entry.get("movable", "true") == "true" and float(entry.get("elevation", 0)) == 0


def _entry_of(path: Path, name: str, member: str, entry: dict[str, str]) -> ModelEntry:
    title = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), entry.get("name", ""))
    size = tuple(float(entry.get(key, 0)) for key in ("width", "depth", "height"))
    turn = tuple(float(value) for value in entry.get("modelRotation", "").split())
    return ModelEntry(
        f"{name}/{member}",
        path,
        member,
        title.lower() or PurePosixPath(member).stem,
        (size[0], size[1], size[2]) if min(size) > 0 else None,
        turn if len(turn) == 9 else None,
    )
