"""Drawn scenes: what they show agrees with what they say about themselves."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import get_args

import cv2
import numpy as np
import pytest

from pics_cli.core.images.masks import Mask
from pics_cli.core.recipes.sources import Pool, SceneRelation
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import RenderedScene, render_scene
from pics_cli.core.scenes.drawn.shapes import CATEGORIES
from pics_cli.core.scenes.drawn.spec import ScenePlan, SceneSettings

RELATIONS: tuple[SceneRelation, ...] = get_args(SceneRelation)


def settings(size: int = 128, objects: int = 2, only: str = "") -> SceneSettings:
    """Settings with all relations, or one."""
    return SceneSettings(size, objects, tuple((r, 1.0) for r in RELATIONS if only in ("", r)), 25.0, 0.5)


@cache
def scene(settings_: SceneSettings, pool: Pool, index: int) -> tuple[ScenePlan, RenderedScene]:
    plan = plan_scene(settings_, pool, 5, index)
    return plan, render_scene(plan)


def digest(drawn: RenderedScene) -> str:
    """Of every byte."""
    parts = [drawn.image, drawn.clean, *drawn.masks, *drawn.full_masks, *drawn.alternates]
    text = repr((drawn.order, drawn.pairs))
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts) + text.encode()).hexdigest()


def grown(mask: Mask, pixels: int) -> Mask:
    return cv2.dilate(mask.view(np.uint8), np.ones((2 * pixels + 1,) * 2, np.uint8)).astype(bool)


def bounds(mask: Mask) -> tuple[int, int, int, int]:
    x, y, across, down = cv2.boundingRect(mask.view(np.uint8))
    return x, y, x + across, y + down


def test_same_bytes_in_another_process_and_order() -> None:
    """And importing the renderer imports neither scikit-image nor SciPy."""
    plans = [plan_scene(settings(96, 3), pool, 11, index) for pool in ("train", "held_out") for index in (0, 1)]
    digests = [digest(render_scene(plan)) for plan in reversed(plans)][::-1]
    code = (
        "import pickle, sys\nfrom pics_cli.core.scenes.drawn.render import render_scene\n"
        "assert not [name for name in sys.modules if name.startswith(('skimage', 'scipy'))]\n"
        "from test_render import digest\n"
        "print([digest(render_scene(plan)) for plan in pickle.loads(sys.stdin.buffer.read())])"
    )
    directory = __file__.rsplit("/", 1)[0]
    process = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {directory!r})\n{code}"],
        input=pickle.dumps(plans),
        capture_output=True,
        check=True,
    )
    assert process.stdout.decode().strip() == str(digests)
    assert plan_scene(settings(96, 3), "train", 11, 1) == plans[1]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(("size", "objects"), [(64, 1), (64, 4), (256, 3), (512, 2)])
def test_shapes_and_sizes(size: int, objects: int) -> None:
    plan, drawn = scene(settings(size, objects), "train", 3)
    assert drawn.image.shape == drawn.clean.shape == (size, size, 3)
    assert drawn.image.dtype == drawn.clean.dtype == np.uint8
    assert len(plan.objects) == len(drawn.masks) == len(drawn.full_masks) == len(drawn.alternates) == objects
    for mask in (*drawn.masks, *drawn.full_masks):
        assert mask.shape == (size, size)
        assert mask.dtype == np.bool_
    assert sorted(drawn.order) == list(range(objects))
    assert [pair.objects for pair in drawn.pairs] == list(combinations(range(objects), 2))
    assert all(thing.category in CATEGORIES for thing in plan.objects)
    assert 40 < drawn.image.mean() < 215, "neither black nor blown out"


@pytest.mark.parametrize("pool", ["train", "held_out"])
@pytest.mark.parametrize("objects", [1, 2, 3, 4])
def test_every_object_is_seen_inside_the_frame(pool: Pool, objects: int) -> None:
    estimates = []
    for index in range(6):
        plan, drawn = scene(settings(128, objects), pool, index)
        for thing, mask, full in zip(plan.objects, drawn.masks, drawn.full_masks, strict=True):
            seen = np.count_nonzero(mask)
            assert seen >= 0.014 * mask.size
            assert seen >= 0.33 * np.count_nonzero(full)
            assert not np.any(mask & ~full)
            estimates.append(thing.area / seen)
            assert np.abs(np.subtract(thing.box, bounds(mask))).max() <= 3
        assert not any(np.any(a & b) for a, b in combinations(drawn.masks, 2))
    # Good to a tenth, but for the odd small rest of an object in a vessel.
    assert np.quantile(np.abs(np.subtract(estimates, 1)), 0.9) < 0.1
    assert 0.8 < min(estimates) < max(estimates) < 1.2


def test_visible_is_full_minus_what_is_in_front() -> None:
    """But for a vessel, whose content hides a part of its back wall."""
    checked = 0
    for index in range(16):
        plan, drawn = scene(settings(128, 3), "train", index)
        vessels = set(plan.containers().values())
        front = np.zeros((128, 128), np.bool_)
        for k in drawn.order:
            expected = drawn.full_masks[k] & ~front
            if k not in vessels:
                # Pixels on an edge go to the one with more than half of them, whatever is in front.
                assert np.count_nonzero(expected ^ drawn.masks[k]) <= 0.02 * np.count_nonzero(drawn.full_masks[k])
                checked += 1
            front |= drawn.masks[k]
    assert checked > 30


def test_full_masks_are_those_of_each_object_alone() -> None:
    for index in range(4):
        plan, drawn = scene(settings(128, 3), "held_out", index)
        for k, thing in enumerate(plan.objects):
            alone = render_scene(replace(plan, objects=(thing,), order=(0,), placed_pairs=()))
            np.testing.assert_array_equal(alone.masks[0], drawn.full_masks[k])
            np.testing.assert_array_equal(alone.clean, drawn.clean)


def test_picture_differs_from_the_clean_one_where_objects_and_shadows_are() -> None:
    for index in range(8):
        _, drawn = scene(settings(128, 2), "train", index)
        inside = np.logical_or.reduce(drawn.masks)
        change = np.abs(drawn.image.astype(int) - drawn.clean).max(axis=2)
        assert np.mean(change[inside] > 4) > 0.9
        outside = ~grown(inside, 2)
        assert np.mean(change[outside] > 0) > 0.01, "no shadow at all"
        # What changes outside is darker, and it joins the objects: nothing is lit up, nothing far away changes.
        lighter = drawn.image.astype(int) - drawn.clean
        assert lighter[outside].max() <= 1
        changed = cv2.connectedComponents(((change > 2) | inside).astype(np.uint8))[1]
        joined = np.isin(changed, np.unique(changed[inside]))
        assert np.count_nonzero((change > 2) & ~joined) <= 0.002 * change.size
        assert np.array_equal(drawn.image[~grown(change > 0, 1)], drawn.clean[~grown(change > 0, 1)])
        assert np.mean(change == 0) > 0.1


@pytest.mark.parametrize("relation", ["occluding", "containing", "supporting"])
def test_order_decides_who_is_shown_where_objects_meet(relation: str) -> None:
    for index in range(4):
        plan, true = scene(settings(128, 2, only=relation), "train", index)
        shared = true.full_masks[0] & true.full_masks[1]
        assert np.count_nonzero(shared) > 30
        first, second = render_scene(plan, (0, 1)), render_scene(plan, (1, 0))
        assert first.order == (0, 1)
        for drawn, front, back in ((first, 0, 1), (second, 1, 0)):
            np.testing.assert_array_equal(drawn.masks[front], true.full_masks[front])
            assert not np.any(drawn.masks[back] & shared)
            np.testing.assert_array_equal(drawn.clean, true.clean)
        core = ~grown(~shared, 2)
        differs = np.abs(first.image.astype(int) - second.image).max(axis=2) > 4
        assert differs[core].mean() > 0.8
        away = ~grown(shared, 2)
        np.testing.assert_array_equal(first.image[away], second.image[away])
        if relation != "containing":
            np.testing.assert_array_equal(render_scene(plan, true.order).image, true.image)


def test_an_order_must_name_each_object() -> None:
    plan, _ = scene(settings(64), "train", 0)
    with pytest.raises(ValueError, match="each of 0 to 1 once"):
        render_scene(plan, (0, 0))


@pytest.mark.parametrize("pool", ["train", "held_out"])
@pytest.mark.parametrize("relation", RELATIONS)
def test_each_relation_holds_in_the_picture(relation: SceneRelation, pool: Pool) -> None:
    for index in range(7):
        plan, drawn = scene(settings(192, 2, only=relation), pool, index)
        (pair,) = drawn.pairs
        assert pair.relation == relation
        subject, other = pair.subject, 1 - pair.subject
        a, b = drawn.full_masks[subject], drawn.full_masks[other]
        shared = np.count_nonzero(a & b)
        if relation == "apart":
            assert not np.any(grown(a, 2) & b)
        elif relation == "touching":
            assert np.any(grown(a, 2) & b)
            assert shared <= 0.05 * min(np.count_nonzero(a), np.count_nonzero(b))
        elif relation == "occluding":
            assert drawn.order == (subject, other)
            assert 0.1 <= shared / np.count_nonzero(b) <= 0.6
        elif relation == "supporting":
            low, high = plan.objects[subject], plan.objects[other]
            assert drawn.order == (other, subject)
            top = low.shape.support
            assert top is not None
            assert high.position[2] == pytest.approx(low.position[2] + top[0] * low.scale)
            # It stands within the picture of the host: its lowest row lies inside the other's outline.
            x, y, _ = plan.camera.project(np.asarray([high.position]))[0]
            assert a[int(y), int(x)]
            assert bounds(b)[1] < bounds(a)[3]
        else:
            check_contained(plan, drawn, subject, other)


def check_contained(plan: ScenePlan, drawn: RenderedScene, vessel: int, content: int) -> None:
    """Hidden behind the front wall, in front of the back wall, and above the rim or within the vessel's outline."""
    assert drawn.order == (vessel, content)
    hidden = drawn.full_masks[content] & ~drawn.masks[content]
    outline = drawn.full_masks[vessel]
    assert 0.03 <= np.count_nonzero(hidden) / np.count_nonzero(drawn.full_masks[content]) <= 0.65
    assert np.mean(drawn.masks[vessel][hidden]) > 0.98
    assert np.any(drawn.masks[content] & outline), "it hides no part of the back wall"
    thing = plan.objects[vessel]
    cavity = thing.shape.cavity
    assert cavity is not None
    rim = np.asarray([(*thing.position[:2], thing.position[2] + float(cavity[-1, 0]) * thing.scale)])
    row = plan.camera.project(rim)[0, 1]
    ys, _ = np.nonzero(hidden)
    assert ys.min() > row - 2, "the back wall hides it"
    outside = drawn.masks[content] & ~grown(outline, 2)
    assert not np.any(outside) or np.nonzero(outside)[0].max() < row, "it sticks out of the vessel's side"


def test_derived_pairs_follow_the_full_masks() -> None:
    seen: Counter[str] = Counter()
    for index in range(14):
        plan, drawn = scene(settings(128, 4), "train", index)
        planned = {pair.objects for pair in plan.placed_pairs}
        assert len(planned) == 3
        for pair in drawn.pairs:
            i, j = pair.objects
            if (i, j) in planned:
                continue
            seen[pair.relation] += 1
            shared = np.count_nonzero(drawn.full_masks[i] & drawn.full_masks[j])
            if pair.relation == "occluding":
                assert shared > 0
                assert drawn.order.index(pair.subject) == min(drawn.order.index(i), drawn.order.index(j))
            else:
                assert np.any(grown(drawn.full_masks[i], 2) & drawn.full_masks[j]) == (pair.relation == "touching")
                assert shared < 0.05 * min(np.count_nonzero(drawn.full_masks[k]) for k in (i, j))
    assert seen["apart"]
    assert seen["occluding"]
