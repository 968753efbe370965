"""Raw material of one pool: what of a folder's models can stand in a scene, examined once and remembered."""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pics_cli.core.recipes.sources import RenderedPool
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.core.runtime.files import (
    INDEX_CACHE_HINT,
    AtomicFile,
    cache_folder,
    file_crc32,
    load_json,
    make_folder,
    write_json,
)
from pics_cli.core.runtime.locks import locked
from pics_cli.core.scenes.rendered.catalogue import (
    HDRI_SUFFIXES,
    PHOTO_SUFFIXES,
    ModelEntry,
    find_models,
    find_pictures,
    pool_of,
)
from pics_cli.core.scenes.rendered.heights import Cavity
from pics_cli.core.scenes.rendered.lights import load_hdri
from pics_cli.core.scenes.rendered.models import UnusableModel, load_model
from pics_cli.core.scenes.rendered.spec import Material, UsableModel, pack_points
from pics_cli.core.scenes.rendered.textures import load_photo
from pics_cli.errors import PicsError, read_error

logger = logging.getLogger(__name__)

# Of what is remembered: a new number where models are read or measured otherwise.
_VERSION = 4


def open_material(models: Path, hdris: Path, grounds: Path, pool: RenderedPool, bad: BadRecords) -> Material:
    """The models, panoramas and photographs of a pool.

    Args:
        models, hdris, grounds: folders.
        pool: train, val or test.
        bad: counts what is passed over.

    Raises:
        PicsError: a folder is missing, or holds nothing that can be used.
    """
    entries = find_models(models, bad)
    facts, points = _examine(models, entries)
    usable = []
    for entry in entries:
        fact = facts[entry.name]
        if isinstance(fact, str):
            bad.extend(fact, [entry.name])
        else:
            cavity = Cavity(**fact["cavity"]) if fact["cavity"] else None
            width, depth, height = fact["size"]
            size, packed = (width, depth, height), points[fact["points"]]
            usable.append(UsableModel(entry, size, fact["length"], fact["support"], cavity, packed))
    if not usable:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(bad.counts.items()))
        raise PicsError(
            f"{models}: none of {len(entries)} models can be used: {counts}",
            "a model is OBJ, GLB or .sh3f, neither flat nor of glass, of at most 120,000 triangles",
        )
    pictures = []
    for folder, suffixes, what, load, reason in (
        (hdris, HDRI_SUFFIXES, "HDRI panoramas", load_hdri, "bad_hdri"),
        (grounds, PHOTO_SUFFIXES, "photographs", load_photo, "bad_photo"),
    ):
        readable = []
        for path in find_pictures(folder, suffixes, what):
            try:
                load(path)
                readable.append((path.relative_to(folder).as_posix(), path))
            except ValueError as error:
                bad.extend(reason, [f"{path} {error}"])
        if not readable:
            problem = bad.lines[-1].partition(": ")[2]
            raise PicsError(
                f"{folder}: no {what} that can be read: {problem}",
                f"there are free {what} at polyhaven.com and ambientcg.com",
            )
        pictures.append(tuple(pool_of(readable, pool, what)))
    return Material(tuple(pool_of([(model.entry.name, model) for model in usable], pool, "models")), *pictures)


def _examine(folder: Path, entries: Sequence[ModelEntry]) -> tuple[dict[str, Any], npt.NDArray[np.uint16]]:
    """By name, what a model is good for, or in one word why it cannot be used; and the points of the usable ones.

    Both are kept in the user's cache folder; processes share the points' memory.
    """
    paths = sorted({entry.path for entry in entries})
    try:
        states = [(path.relative_to(folder).as_posix(), path.stat()) for path in paths]
    except OSError as error:
        raise read_error(folder, error) from None
    key = json.dumps([_VERSION, str(folder.resolve()), [(n, s.st_size, s.st_mtime_ns) for n, s in states]])
    stem = cache_folder() / "models" / hashlib.sha256(key.encode()).hexdigest()[:32]
    facts_path, points_path = stem.with_suffix(".json"), stem.with_suffix(".npy")
    make_folder(stem.parent, INDEX_CACHE_HINT)
    with locked(stem.with_suffix(".lock"), INDEX_CACHE_HINT):
        try:
            recorded = load_json(facts_path.read_bytes())
            facts: dict[str, Any] = recorded["facts"]
            whole = recorded["checksums"] == [_checksum(facts), file_crc32(points_path)]
            if whole and all(entry.name in facts for entry in entries):
                return facts, np.load(points_path, mmap_mode="r")
        except (OSError, ValueError, TypeError, KeyError):  # not examined yet, or damaged
            pass
        logger.info("examining %d models of %s (once)", len(entries), folder)
        facts, packed = {}, list[npt.NDArray[np.uint16]]()
        for entry in entries:
            try:
                model = load_model(entry)
            except UnusableModel as error:
                facts[entry.name] = str(error)
                continue
            cavity = asdict(model.cavity) if model.cavity else None
            facts[entry.name] = {
                "size": model.size, "length": model.length, "support": model.support, "cavity": cavity,
                "points": len(packed),
            }  # fmt: skip
            packed.append(pack_points(model.points))
        array = np.stack(packed) if packed else np.zeros((0, 0, 3), np.uint16)
        with AtomicFile(points_path) as file:
            np.save(file, array)
        write_json(facts_path, {"facts": facts, "checksums": [_checksum(facts), file_crc32(points_path)]})
    return facts, array


def _checksum(facts: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(facts).encode())
