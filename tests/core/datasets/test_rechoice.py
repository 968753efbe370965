"""Groups chosen again after faults: what a choice from the beginning gives, at a fraction of its work."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from pics_cli.core.datasets import pairs, rechoice
from pics_cli.core.datasets.build_sample import _settle
from pics_cli.core.datasets.pairs import choose_group
from pics_cli.core.datasets.rechoice import Rechoice
from pics_cli.core.datasets.scene import Instance, Scene, Skip
from pics_cli.core.images.geometry import box_iou
from pics_cli.core.images.masks import BoxMask
from pics_cli.core.recipes.base import find_recipe
from pics_cli.core.recipes.dataset import DatasetRecipe, PairSettings, load_dataset

SIDE = 60


def filled(box: tuple[int, int, int, int]) -> BoxMask:
    x0, y0, x1, y1 = box
    return BoxMask(box, np.ones((y1 - y0, x1 - x0), np.bool_), SIDE, SIDE)


def instance(rng: np.random.Generator, likely: float = 0.8) -> Instance:
    """A box whose mask fills it, or a part, or something else; some may not be chosen. Few sizes: equals are common."""
    x, y = (5 * rng.integers(0, 8, 2)).tolist()
    w, h = (10 * rng.integers(1, 3, 2)).tolist()
    mask = [(x, y, x + w, y + h), (x, y, x + w, y + 3), (x, y, x + 2, y + 2), (y, x, y + h, x + w)]
    box = mask[rng.choice(4, p=[0.4, 0.2, 0.2, 0.2])]
    return Instance(
        box=(float(x), float(y), float(x + w), float(y + h)), area=float(w * h),
        ignored=bool(rng.random() > likely), mask=partial(filled, box) if rng.random() < 0.9 else None,
    )  # fmt: skip


def scene(instances: list[Instance]) -> Scene:
    return Scene("key", 1, (), SIDE, SIDE, tuple(instances))


KINDS: list[tuple[Any, int]] = [("max_iou", 2), ("max_iou", 3), ("largest", 1), ("largest", 3)]
CONTAINED: list[Any] = ["drop", "keep"]
DISAGREE: list[Any] = ["drop", "mask"]
RULES = [
    PairSettings(rule=rule, objects=objects, contained=contained, box_mask_disagree=disagree, min_area_ratio=0.01)
    for rule, objects in KINDS
    for contained in CONTAINED
    for disagree in DISAGREE
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(8))
def test_choices_after_changes_are_those_of_the_changed_scene(seed: int, rule: PairSettings) -> None:
    rng = np.random.default_rng(seed)
    instances = [instance(rng) for _ in range(rng.integers(0, 30))]
    choices = Rechoice(scene(instances), rule)
    found = 0
    for _ in range(40 if instances else 1):
        expected, chosen = choose_group(scene(instances), rule), choices.choose()
        assert isinstance(chosen, Skip) if isinstance(expected, Skip) else chosen == expected
        found += not isinstance(expected, Skip)
        if instances:
            i = int(rng.integers(len(instances)))
            instances[i] = instance(rng, 0.6)
            choices.mend(i, instances[i])
    assert found or len(instances) < 8


def recipe(rule: PairSettings) -> DatasetRecipe:
    return replace(load_dataset(find_recipe("coco")), pairs=rule)


def settle_plainly(picture: Scene, rule: PairSettings, notes: Counter[str]) -> Any:
    """The choice made from the beginning after every fault."""
    first = ""
    while not isinstance(group := choose_group(picture, rule), Skip):
        masks = {i: picture.instances[i].mask() for i in group}  # type: ignore[misc]
        fault = pairs.find_fault(picture.instances, group, masks, rule)
        if fault is None:
            return [picture.instances[i] for i in group]
        first = first or fault[0]
        notes[fault[0]] += 1
        picture = scene([fault[2] if i == fault[1] else each for i, each in enumerate(picture.instances)])
    return Skip(first)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(8))
def test_faults_are_settled_as_before(seed: int, rule: PairSettings) -> None:
    rng = np.random.default_rng(seed)
    picture = scene([instance(rng) for _ in range(30)])
    group = choose_group(picture, rule)
    assert not isinstance(group, Skip)
    notes, plain_notes = Counter[str](), Counter[str]()
    expected = settle_plainly(picture, rule, plain_notes)
    settled = _settle(picture, group, recipe(rule), notes)
    assert (settled if isinstance(settled, Skip) else settled[1]) == expected
    assert notes == plain_notes


def test_many_faults_cost_what_a_few_choices_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,200 objects that are not where their boxes say took 13 s."""
    rng, count, compared = np.random.default_rng(0), 200, 0
    instances = [
        Instance(box=(x, y, x + 20.0, y + 20.0), area=400.0, mask=partial(filled, (x, y, x + 9, y + 9)))
        for x, y in rng.integers(0, 40, (count, 2)).tolist()
    ]

    def counted(a: Any, b: Any) -> Any:
        nonlocal compared
        compared += len(a) * len(b)
        return box_iou(a, b)

    rule = PairSettings(contained="keep", min_area_ratio=0.01)
    group = choose_group(scene(instances), rule)
    assert not isinstance(group, Skip)
    for module in (pairs, rechoice):
        monkeypatch.setattr(module, "box_iou", counted)
    notes = Counter[str]()
    assert _settle(scene(instances), group, recipe(rule), notes) == Skip("box_mask_disagree")
    assert notes["box_mask_disagree"] > 0.9 * count
    assert compared < 10 * count**2
