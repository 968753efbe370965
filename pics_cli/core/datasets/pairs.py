"""Choice of the interacting objects of a picture, from the annotation alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from pics_cli.core.datasets.compat import published_largest, published_max_iou
from pics_cli.core.datasets.scene import Instance, Scene, Skip
from pics_cli.core.images.geometry import box_iou, is_nested
from pics_cli.core.recipes.dataset import ClassFilter, PairSettings

Group = tuple[int, ...]
"""Indices into `Scene.instances`, in the order in which the objects are stored."""

# Why a picture gives no group; the texts explain the words to the user.
SKIP_REASONS = {
    "no_annotations": "the picture has no annotated object",
    "too_few_objects": "fewer objects than asked for are large enough, of the wanted classes and no crowd",
    "no_masks": "enough objects, but too few of them have a mask",
    "no_overlap": "no two boxes overlap",
    "only_contained": "boxes overlap only where one lies inside the other",
    "group_too_small": "a pair was found, but no further object fits the rule",
    "tiny_mask": "a chosen object's mask holds fewer than 10 pixels",
    "full_mask": "a chosen object's mask covers the whole picture",
}


def choose(scene: Scene, rule: PairSettings, compat: bool = False) -> Group | Skip:
    """The group of K instances of a scene that the rule picks, or why there is none.

    `max_iou` starts from the pair of boxes with the highest IoU (the first of equals in annotation order) and adds, one
    by one, the object with the highest IoU with any member; every IoU must be above 0. `largest` starts from the two
    largest objects (the first of equals) and adds the next largest. With `contained: drop` no two members may lie one
    inside the other. K = 1 takes the largest object by either rule. In compat the choice is the research code's.
    """
    if not scene.instances:
        return Skip("no_annotations")
    candidate = _is_large if compat else is_candidate
    found = [i for i, instance in enumerate(scene.instances) if candidate(instance, scene, rule)]
    if len(found) < rule.objects:
        return Skip("too_few_objects")
    found = [i for i in found if scene.instances[i].mask is not None]
    if len(found) < rule.objects:
        return Skip("no_masks")
    instances = [scene.instances[i] for i in found]
    if compat:
        chosen = _published(instances, rule)
    elif rule.objects == 1 or rule.rule == "largest":
        chosen = _largest(instances, rule)
    else:
        chosen = _max_iou(instances, rule)
    return chosen if isinstance(chosen, Skip) else tuple(found[i] for i in chosen)


def is_candidate(instance: Instance, scene: Scene, rule: PairSettings) -> bool:
    """Whether an instance may be chosen, before overlap is looked at."""
    x0, y0, x1, y1 = instance.box
    return _is_large(instance, scene, rule) and not instance.ignored and x1 > x0 and y1 > y0


def _is_large(instance: Instance, scene: Scene, rule: PairSettings) -> bool:
    """What the research code asks of a candidate."""
    large = instance.area > rule.min_area_ratio * (scene.width * scene.height)
    return large and _wanted(instance.category, rule.classes)


def _wanted(category: str | None, classes: ClassFilter) -> bool:
    return (not classes.include or category in classes.include) and category not in classes.exclude


def _published(instances: Sequence[Instance], rule: PairSettings) -> Group | Skip:
    if rule.rule == "largest":
        return published_largest(np.array([instance.area for instance in instances]))
    pair = published_max_iou(np.array([instance.box for instance in instances], np.float32))
    return Skip("no_overlap") if pair is None else pair


def _max_iou(instances: Sequence[Instance], rule: PairSettings) -> Group | Skip:
    boxes = np.array([instance.box for instance in instances], np.float64)
    iou = box_iou(boxes, boxes)
    np.fill_diagonal(iou, 0.0)
    allowed = ~is_nested(boxes) if rule.contained == "drop" else np.ones_like(iou, np.bool_)
    legal = np.where(allowed, iou, 0.0)
    first, second = np.unravel_index(int(legal.argmax()), legal.shape)
    if legal[first, second] <= 0:
        return Skip("only_contained" if iou.max() > 0 else "no_overlap")
    group = [int(first), int(second)]
    while len(group) < rule.objects:
        pull = iou[group].max(axis=0) * allowed[group].all(axis=0)
        pull[group] = 0.0
        best = int(pull.argmax())
        if pull[best] <= 0:
            return Skip("group_too_small")
        group.append(best)
    return tuple(group)


def _largest(instances: Sequence[Instance], rule: PairSettings) -> Group | Skip:
    order = sorted(range(len(instances)), key=lambda i: -instances[i].area)
    if rule.objects == 1 or rule.contained == "keep":
        return tuple(order[: rule.objects])
    inside = is_nested(np.array([instance.box for instance in instances], np.float64))
    pairs = ((first, second) for first, second in combinations(order, 2) if not inside[first, second])
    group = list(next(pairs, ()))
    if not group:
        return Skip("only_contained")
    for i in order:
        if len(group) < rule.objects and not inside[i, group].any():  # a member is nested in itself
            group.append(i)
    return tuple(group) if len(group) == rule.objects else Skip("group_too_small")
