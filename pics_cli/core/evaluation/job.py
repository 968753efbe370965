"""What an evaluation is asked to do, how far it is, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pics_cli.core.evaluation.picture_folder import pictures
from pics_cli.core.evaluation_recipe import EvaluationRecipe


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
