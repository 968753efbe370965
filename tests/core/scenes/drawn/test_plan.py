"""Plans of drawn scenes: settings, relations by weight, what the pools share: nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, get_args

import pytest

from pics_cli.core.recipes.sources import SceneRelation
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn import background, colors, grounds, patterns, photos, shapes
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.roles import sample_roles
from pics_cli.core.scenes.drawn.spec import ScenePlan, SceneSettings

RELATIONS: tuple[SceneRelation, ...] = get_args(SceneRelation)
ONE_OBJECT = SceneSettings(256, 1, (("apart", 1.0),), 25.0, 0.6)


@pytest.mark.parametrize("bad", [{"size": 32}, {"num_objects": 7}, {"relations": (("apart", 0.0),)}])
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|need"):
        replace(ONE_OBJECT, **bad)


def test_relations_occur_as_often_as_their_weights_say() -> None:
    weights: dict[SceneRelation, float] = {
        "apart": 1.0,
        "touching": 1.0,
        "occluding": 4.0,
        "supporting": 2.0,
        "containing": 2.0,
    }
    wanted = SceneSettings(64, 2, tuple((name, weights[name]) for name in RELATIONS), 25, 0.5)
    # The draw is the first thing that is made, and it is kept: see `plan_scene`.
    drawn = Counter(sample_roles(wanted, generator(1, "weights", index))[1].relation for index in range(2000))
    for name, weight in weights.items():
        assert drawn[name] / 2000 == pytest.approx(weight / 10, abs=0.035)
    planned = Counter(plan_scene(wanted, "train", 1, index).placed_pairs[0].relation for index in range(100))
    for name, weight in weights.items():
        assert planned[name] / 100 == pytest.approx(weight / 10, abs=0.13)


def test_same_index_differs_between_pools_and_seeds() -> None:
    plan = plan_scene(ONE_OBJECT, "train", 1, 0)
    assert plan.objects != plan_scene(ONE_OBJECT, "held_out", 1, 0).objects
    assert plan.objects != plan_scene(ONE_OBJECT, "train", 2, 0).objects
    assert plan.objects != plan_scene(ONE_OBJECT, "train", 1, 1).objects


def plans_of(pool: str) -> list[ScenePlan]:
    settings = SceneSettings(64, 2, (("apart", 1.0), ("supporting", 1.0), ("containing", 1.0)), 0, 0)
    return [plan_scene(settings, pool, 1, index) for index in range(60)]  # type: ignore[arg-type]


def test_pools_share_no_family_pattern_colour_or_photograph() -> None:
    for families in shapes.FAMILIES.values():
        assert not families["train"].keys() & families["held_out"].keys()
    for table in (patterns.PATTERNS, grounds.GROUNDS):
        assert not table["train"].keys() & table["held_out"].keys()
    assert not set(photos.PHOTOS["train"]) & set(photos.PHOTOS["held_out"])

    def colours(value: object) -> set[int]:
        if isinstance(value, int):
            return {value}
        items = value.values() if isinstance(value, dict) else value
        return set().union(*(colours(item) for item in items))  # type: ignore[attr-defined]

    kinds = (colors.OBJECT_PALETTES, colors.GROUND_TONES, colors.WALL_COLORS, colors.SKY_COLORS)
    train, held_out = (set().union(*(colours(kind[pool]) for kind in kinds)) for pool in ("train", "held_out"))
    assert not train & held_out


def test_plans_keep_to_their_pool() -> None:
    for pool in ("train", "held_out"):
        used = set()
        for plan in plans_of(pool):
            assert plan.background.ground in grounds.GROUNDS[pool]
            assert plan.background.backdrop in background.BACKDROPS[pool]
            for obj in plan.objects:
                assert obj.family in shapes.FAMILIES[obj.category][pool]
                assert obj.material.pattern == patterns.LABEL or obj.material.pattern in patterns.PATTERNS[pool]
                used.add(obj.category)
        assert len(used) >= 9, "most categories occur"
