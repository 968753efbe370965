"""Figures of many scenes put together: means with intervals by relation, differences of methods, and the bars."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from pics_cli.core.evaluation.bootstrap import Estimate, difference, estimate
from pics_cli.core.sources import SceneRelation

Floats = npt.NDArray[np.float64]

FIGURES = ("psnr_region", "seam", "seam_box", "seam_object", "shadow", "lit", "order", "identity", "sharpness")
ALL, HOSTED = "all", "containing or supporting"
RELATIONS: tuple[SceneRelation, ...] = get_args(SceneRelation)
# Where less is better; of sharpness neither is.
LESS = ("seam", "seam_box", "seam_object", "shadow", "lit")
# What the model is to be better in than the baselines, and among which scenes.
BETTER = (("psnr_region", ALL), ("seam", ALL), ("shadow", ALL), ("order", HOSTED))
LEAST_ORDER, LEAST_IDENTITY, SHARPNESS = 0.9, 0.95, (0.8, 1.2)


class Measured(NamedTuple):
    """Figures of a scene: its number, relation, and by method and figure a number, nan where there is none."""

    number: int
    relation: SceneRelation
    values: Mapping[str, Mapping[str, float]]


class Bar(NamedTuple):
    """Something asked of the model: what, what was found, and whether it is met (None: nothing to say it by)."""

    what: str
    found: str
    met: bool | None


def summarise(rows: Sequence[Measured], methods: Sequence[str], seed: int) -> dict[str, Any]:
    """All of it as plain data for JSON; nan is null.

    Args:
        rows: scenes, in their order.
        methods: those measured; where `parallel` is one of them, it is compared with each of the others.
        seed: of the intervals.
    """
    groups, rivals = _groups(rows), _rivals(methods)
    return {
        "scenes": len(rows),
        "by_relation": dict(Counter(row.relation for row in rows)),
        "figures": {
            group: {name: {f: _plain(estimate(_column(chosen, name, f), seed)) for f in FIGURES} for name in methods}
            for group, chosen in groups.items()
        },
        "parallel_minus": {
            rival: {
                group: {f: _plain(_lead(chosen, rival, f, seed)) for f in FIGURES} for group, chosen in groups.items()
            }
            for rival in rivals
        },
        "bars": [bar._asdict() for bar in bars(rows, methods, seed)],
        "each": {
            "number": [row.number for row in rows],
            "relation": [row.relation for row in rows],
            "values": {n: {f: [_rounded(row.values[n][f]) for row in rows] for f in FIGURES} for n in methods},
        },
    }


def bars(rows: Sequence[Measured], methods: Sequence[str], seed: int) -> list[Bar]:
    """What is asked of the model in parallel, against the baselines measured and by itself."""
    if "parallel" not in methods:
        return []
    groups, found = _groups(rows), []
    for figure, group in BETTER:
        for rival in _rivals(methods):
            if rival == "sequential":
                continue
            lead = _lead(groups[group], rival, figure, seed)
            met = lead.high < 0 if figure in LESS else lead.low > 0
            where = "" if group == ALL else f", {group}"
            found.append(Bar(f"{figure} better than {rival}{where}", told(lead, True), met if lead.scenes else None))
    order, identity, sharp = (estimate(_column(rows, "parallel", f), seed) for f in ("order", "identity", "sharpness"))
    low, high = SHARPNESS
    found.append(Bar(f"order at least {LEAST_ORDER:.0%}", told(order), _above(order, LEAST_ORDER)))
    found.append(Bar(f"identity at least {LEAST_IDENTITY:.0%}", told(identity), _above(identity, LEAST_IDENTITY)))
    found.append(Bar(f"sharpness {low} to {high}", told(sharp), low <= sharp.mean <= high if sharp.scenes else None))
    return found


def told(one: Estimate, signed: bool = False) -> str:
    """A mean with its interval and number of scenes."""
    sign = "+" if signed else ""
    return f"{one.mean:{sign}.3f} [{one.low:{sign}.3f}, {one.high:{sign}.3f}], {one.scenes} scenes"


def _above(one: Estimate, least: float) -> bool | None:
    return one.mean >= least if one.scenes else None


def _rivals(methods: Sequence[str]) -> list[str]:
    return [name for name in methods if name != "parallel"] if "parallel" in methods else []


def _groups(rows: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Scenes by relation, and those that are looked at together; names that have no scene, too."""
    groups = {ALL: list(rows), HOSTED: [row for row in rows if row.relation in ("containing", "supporting")]}
    return groups | {relation: [row for row in rows if row.relation == relation] for relation in RELATIONS}


def _column(rows: Sequence[Measured], method: str, figure: str) -> Floats:
    return np.array([row.values[method][figure] for row in rows], np.float64)


def _lead(rows: Sequence[Measured], rival: str, figure: str, seed: int) -> Estimate:
    return difference(_column(rows, "parallel", figure), _column(rows, rival, figure), seed)


def _plain(one: Estimate) -> dict[str, float | int | None]:
    return {name: _rounded(value) for name, value in one._asdict().items()}


def _rounded(value: float) -> float | int | None:
    return (round(value, 5) if isinstance(value, float) else value) if math.isfinite(value) else None
