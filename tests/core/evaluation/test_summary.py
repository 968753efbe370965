"""Bars are met by what is better, and not by what is not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pics_cli.core.evaluation.summary import ALL, FIGURES, HOSTED, LESS, RELATIONS, Bar, Measured, bars, summarise

METHODS = ("parallel", "sequential", "paste", "poisson")


def rows(lead: float = 1.0, order: float = 1.0, count: int = 100, **of_parallel: float) -> list[Measured]:
    """Scenes of all relations; lead: by how much parallel is better than the others in everything."""
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        relation = RELATIONS[number % len(RELATIONS)]
        scene = dict(zip(FIGURES, rng.normal(20, 4, len(FIGURES)), strict=True))
        values = {}
        for name in METHODS:
            one = {figure: value + rng.normal(0, 0.5) for figure, value in scene.items()}
            if name == "parallel":
                one = {figure: value + (-lead if figure in LESS else lead) for figure, value in one.items()}
            one["order"] = math.nan if relation == "apart" else float(name == "parallel" and number % 10 < 10 * order)
            one |= {"identity": 1.0, "sharpness": 1.0}
            values[name] = one | (of_parallel if name == "parallel" else {})
        found.append(Measured(number, relation, values))
    return found


def met(found: list[Bar]) -> dict[str, bool | None]:
    return {bar.what: bar.met for bar in found}


def test_all_bars_met() -> None:
    found = met(bars(rows(), METHODS, 1))
    assert set(found.values()) == {True}
    for rival in ("paste", "poisson"):
        assert {f"{what} better than {rival}" for what in ("psnr_region", "seam", "shadow")} < set(found)
        assert f"order better than {rival}, {HOSTED}" in found
    assert not any("sequential" in what for what in found)


@pytest.mark.parametrize("lead", [0.0, -1.0])
def test_no_better_is_not_met(lead: float) -> None:
    found = met(bars(rows(lead), METHODS, 1))
    assert not any(found[f"{what} better than paste"] for what in ("psnr_region", "seam", "shadow"))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"order": 0.8}, "order at least 90%"),
        ({"identity": 0.94}, "identity at least 95%"),
        ({"sharpness": 0.7}, "sharpness 0.8 to 1.2"),
        ({"sharpness": 1.3}, "sharpness 0.8 to 1.2"),
    ],
)
def test_single_bars(changed: dict[str, float], what: str) -> None:
    found = met(bars(rows(**changed), METHODS, 1))
    assert [name for name, is_met in found.items() if not is_met] == [what]


def test_summary_is_plain_and_complete() -> None:
    some = rows()
    found = summarise(some, METHODS, 1)
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["scenes"] == 100
    assert again["by_relation"] == dict.fromkeys(RELATIONS, 20)
    assert set(again["figures"]) == {ALL, HOSTED, *RELATIONS}
    assert again["figures"]["apart"]["paste"]["order"] == {"mean": None, "low": None, "high": None, "scenes": 0}
    assert again["figures"][HOSTED]["parallel"]["psnr_region"]["scenes"] == 40
    assert set(again["parallel_minus"]) == {"sequential", "paste", "poisson"}
    lead = again["parallel_minus"]["paste"][ALL]["psnr_region"]
    assert lead["low"] < lead["mean"] < lead["high"]
    assert lead["mean"] == pytest.approx(
        np.mean([row.values["parallel"]["psnr_region"] - row.values["paste"]["psnr_region"] for row in some]), abs=1e-4
    )
    assert again["each"]["values"]["paste"]["order"][0] is None


def test_baselines_alone_have_no_bars() -> None:
    found = summarise(rows(), ("paste", "poisson"), 1)
    assert found["bars"] == []
    assert found["parallel_minus"] == {}
    assert set(found["figures"][ALL]) == {"paste", "poisson"}


def test_nothing_to_say_a_bar_by() -> None:
    found = met(bars(rows(order=math.nan, count=1), METHODS, 1))
    assert found[f"order better than paste, {HOSTED}"] is None
