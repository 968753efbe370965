"""Two evaluations of the same cases against each other: paired differences with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pics_cli.core.evaluation.metrics import MEASURES
from pics_cli.core.evaluation.results import EACH, Record, column, read_each
from pics_cli.core.evaluation.statistics import Estimate, difference
from pics_cli.core.evaluation.subsets import ALL, STRATA
from pics_cli.core.runtime.manifest import differences
from pics_cli.errors import PicsError

_SHOWN = 3


class Line(NamedTuple):
    """A figure of a method in both: which group of cases, and the first minus the second."""

    group: str
    method: str
    figure: str
    lead: Estimate


class Comparison(NamedTuple):
    """What two evaluations have in common, and how they differ in it."""

    cases: int
    lines: list[Line]
    notes: list[str]


def compare(one: Path, other: Path) -> Comparison:
    """Compare two `results.json`, by the tables beside them.

    Methods of one name are compared with each other; where no name is in both, the first of each.

    Raises:
        PicsError: a file that is none, or no case in common.
    """
    first, second = _results(one), _results(other)
    mine, theirs = ({row["key"]: row for row in read_each(path.parent / EACH)} for path in (one, other))
    keys = [key for key in mine if key in theirs]
    if not keys:
        ours, others = (", ".join(list(some)[:_SHOWN]) for some in (mine, theirs))
        raise PicsError(f"no case in common: {ours}, … in {one}, {others}, … in {other}", "compare runs of one recipe")
    notes = [f"{key}: {first[key]} and {second[key]}" for key in ("recipe_hash",) if first[key] != second[key]]
    notes += [f"other data: {line}" for line in differences(first["data"], second["data"])]
    if len(keys) < max(len(mine), len(theirs)):
        notes.append(f"{len(keys)} cases in common of {len(mine)} and {len(theirs)}")
    pairs = [(name, name) for name in first["methods"] if name in second["methods"]]
    pairs = pairs or [(first["methods"][0], second["methods"][0])]
    lines = []
    for a, b in pairs:
        names = [name for name in MEASURES if _has(mine, a, name) and _has(theirs, b, name)]
        for group in (ALL, *STRATA):
            some = [key for key in keys if group in (ALL, mine[key]["stratum"])]
            left, right = ([rows[key] for key in some] for rows in (mine, theirs))
            for name in names if some else ():
                lead = difference(column(left, a, name), column(right, b, name))
                if lead.scenes:
                    lines.append(Line(group, a if a == b else f"{a} / {b}", name, lead))
    return Comparison(len(keys), lines, notes)


def _has(rows: Mapping[str, Record], method: str, name: str) -> bool:
    return any(name in row["values"].get(method, ()) for row in rows.values())


def _results(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PicsError(f"{path}: cannot be read: {error}", "name a results.json of `pics eval`") from None
    if not isinstance(found, dict) or found.get("kind") != "pics-eval":
        raise PicsError(f"{path}: not the results of `pics eval`", "name a results.json")
    return found
