"""What an evaluation is asked to do, how far it is, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pics_cli.core.recipes.evaluation import EvaluationRecipe
from pics_cli.errors import PicsError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_PREFIX = "composed_"


def pictures(folder: Path, flag: str) -> dict[str, Path]:
    """Picture files of a folder (or of `composed/` in it) by id, in order: their names, without `composed_`.

    Raises:
        PicsError: no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise PicsError(f"{flag} {folder}: no such folder", "name a folder of pictures called after their samples")
    place = folder / "composed" if (folder / "composed").is_dir() else folder
    files = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise PicsError(f"{flag} {folder}: no picture in it", f"expected files such as ID{SUFFIXES[0]}")
    return {path.stem.removeprefix(_PREFIX): path for path in files}


@dataclass(frozen=True)
class Peer:
    """Pictures that somebody else's method made of the same cases: its name, and the folder they lie in."""

    name: str
    folder: Path

    @cached_property
    def files(self) -> dict[str, Path]:
        """By sample, as they are when first asked for; see `pictures`."""
        return pictures(self.folder, "--input")


@dataclass(frozen=True)
class Job:
    """Cases to be composited by some methods and measured.

    Attributes:
        recipe: cases, methods and figures.
        output: folder for the results.
        models: folder, repository or name of the bundled one, by the name that its methods get; the first by none.
        peers: pictures of others, measured beside.
        device, dtype: as asked for.
        overwrite: begin anew where the folder holds other results.
        resume: only go on with what was begun in the folder.
    """

    recipe: EvaluationRecipe
    output: Path
    models: dict[str, str] = field(default_factory=dict)
    peers: tuple[Peer, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    overwrite: bool = False
    resume: bool = False


@dataclass
class Progress:
    """How far this process is; read by whoever displays it."""

    done: int = 0
    total: int = 0
    before: int = 0
    doing: str = ""


@dataclass
class Report:
    """How it went.

    Attributes:
        results: as `results.json` has them.
        made, there: cases measured now, and by earlier runs.
    """

    results: dict[str, Any]
    made: int = 0
    there: int = 0
