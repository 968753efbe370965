"""Choice of the interacting objects of an image, from the annotation alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.scene import FloatBox, Instance, Scene, Skip
from pics_cli.core.images.geometry import box_iou, iou_of_two, is_nested
from pics_cli.core.images.masks import BoxMask, mask_iou
from pics_cli.core.recipes.dataset import PairSettings

Group = tuple[int, ...]
"""Indices into `Scene.instances`, in the order in which the objects are stored."""

# Why an image gives no group; the texts explain the words to the user.
SKIP_REASONS = {
    "no_annotations": "the picture has no annotated object",
    "too_few_objects": "fewer objects than asked for are large enough, of the wanted classes and no crowd",
    "no_masks": "enough objects, but too few of them have a mask",
    "no_known_pair": "of no two objects that are large enough the data says how they stand to each other",
    "no_overlap": "no two boxes overlap",
    "only_contained": "boxes overlap only where one lies inside the other",
    "group_too_small": "a pair was found, but no further object fits the rule",
    "tiny_mask": "a chosen object's mask holds fewer than 10 pixels",
    "full_mask": "a chosen object's mask covers the whole picture",
    "small_mask": "masks are smaller than the annotated areas say, and too few large ones are left",
    "box_mask_disagree": "boxes are not those of their masks, and too few others are left",
    "duplicate_object": "one object was annotated twice, and too few others are left",
}

# What contradicts itself among the chosen objects: they are counted, and the choice is made again without them.
FAULTS = {
    "small_mask": "objects whose mask is smaller than their area says; others were looked for",
    "box_mask_disagree": "objects whose box has an IoU below 0.5 with their mask's; see pairs.box_mask_disagree",
    "duplicate_object": "objects annotated twice: an IoU of 0.8 or more of their masks; the first stays",
}
# IoU of an object's box with that of its mask: they differ by pixels; below this they are of something else.
MIN_AGREEMENT = 0.5
_SAME_OBJECT = 0.8
# Pairs that are looked at together: few enough for the processor's cache.
_BLOCK = 1 << 16


Boxes = npt.NDArray[np.floating[Any]]
Outer = Callable[[Boxes, Boxes], npt.NDArray[Any]]


def choose_group(scene: Scene, rule: PairSettings) -> Group | Skip:
    """The group of K instances of a scene that the rule picks, or why there is none.

    `max_iou` starts from the pair of boxes with the highest IoU (the first of equals in annotation order) and adds, one
    by one, the object with the highest IoU with any member; every IoU must be above 0. `largest` starts from the two
    largest objects (the first of equals) and adds the next largest. With `contained: drop` no two members may lie one
    inside the other. K = 1 takes the largest object by either rule. Where a scene has known pairs, it is the one of
    them that overlaps most.
    """
    if scene.known_pairs is not None:
        return _choose_known(scene, rule, scene.known_pairs)
    largest = rule.objects == 1 or rule.rule == "largest"
    return choose_among(scene, rule, is_candidate, _choose_largest if largest else _choose_max_iou)


def _choose_known(scene: Scene, rule: PairSettings, known: Collection[tuple[int, int]]) -> Group | Skip:
    taken = {i for i, each in enumerate(scene.instances) if each.mask is not None and is_candidate(each, scene, rule)}
    pairs = [pair for pair in sorted(known) if taken.issuperset(pair)]
    if not pairs:
        return Skip("no_known_pair" if scene.instances else "no_annotations")
    overlap = {(i, j): iou_of_two(scene.instances[i].box, scene.instances[j].box) for i, j in pairs}
    overlapping = [pair for pair in pairs if overlap[pair] > 0]
    if rule.contained == "drop":
        pairs = [(i, j) for i, j in overlapping if not _are_nested(scene.instances[i].box, scene.instances[j].box)]
    else:
        pairs = overlapping
    if not pairs:
        return Skip("only_contained" if overlapping else "no_overlap")
    return max(pairs, key=overlap.__getitem__)


def _are_nested(a: FloatBox, b: FloatBox) -> bool:
    return bool(is_nested(np.array([a], np.float64), np.array([b], np.float64))[0, 0])


def choose_among(
    scene: Scene,
    rule: PairSettings,
    accepts: Callable[[Instance, Scene, PairSettings], bool],
    choose: Callable[[Sequence[Instance], PairSettings], Group | Skip],
) -> Group | Skip:
    """The group that `choose` picks among the accepted instances that have a mask; a Skip where they are too few."""
    if not scene.instances:
        return Skip("no_annotations")
    accepted = [i for i, instance in enumerate(scene.instances) if accepts(instance, scene, rule)]
    if len(accepted) < rule.objects:
        return Skip("too_few_objects")
    accepted = [i for i in accepted if scene.instances[i].mask is not None]
    if len(accepted) < rule.objects:
        return Skip("no_masks")
    chosen = choose([scene.instances[i] for i in accepted], rule)
    return chosen if isinstance(chosen, Skip) else tuple(accepted[i] for i in chosen)


def most_overlapping(boxes_N4: Boxes, iou: Outer, nested: Outer | None) -> tuple[tuple[int, int] | None, bool]:
    """The two boxes with the highest IoU above 0, the first of equals; and whether any two overlap.

    In blocks of rows: the square of many boxes would not fit into memory.

    Args:
        boxes_N4: float [N, 4].
        iou: of every box of one array with every box of another.
        nested: likewise, whether two boxes do not count; None: all do.
    """
    pair, most, overlaps = None, 0.0, False
    rows = max(1, _BLOCK // len(boxes_N4))
    for start in range(0, len(boxes_N4), rows):
        block, rest = boxes_N4[start : start + rows], boxes_N4[start:]  # a pair stands in the row of its first
        values = np.triu(iou(block, rest), 1)
        highest = values.max(axis=1)
        overlaps = overlaps or bool((highest > 0).any())
        better = np.flatnonzero(highest > most)
        values = values[better]
        if nested is not None and len(better):
            values[nested(block[better], rest)] = 0
        if values.max(initial=0) > most:
            row, column = divmod(int(values.argmax()), len(rest))
            pair, most = (start + int(better[row]), start + column), float(values[row, column])
    return pair, overlaps


def find_fault(
    instances: Sequence[Instance], group: Group, masks: Mapping[int, BoxMask], rule: PairSettings
) -> tuple[str, int, Instance] | None:
    """What contradicts itself in a group whose masks are known.

    Returns:
        One of FAULTS, which instance, and what it is to be before the choice is made again; None where all is well.
    """
    for i in group:
        instance, mask = instances[i], masks[i]
        if mask.area <= rule.min_area_ratio * (mask.width * mask.height):
            return "small_mask", i, replace(instance, area=float(mask.area))
        if rule.box_mask_disagree != "keep" and box_agreement(instance.box, mask) < MIN_AGREEMENT:
            left, top, right, bottom = map(float, mask.box)
            by_mask = replace(instance, box=(left, top, right, bottom)) if rule.box_mask_disagree == "mask" else None
            return "box_mask_disagree", i, by_mask or replace(instance, ignored=True)
    for i, j in combinations(sorted(group), 2):
        smaller, larger = sorted((masks[i].area, masks[j].area))
        if smaller >= _SAME_OBJECT * larger and mask_iou(masks[i], masks[j]) >= _SAME_OBJECT:
            return "duplicate_object", j, replace(instances[j], ignored=True)
    return None


def box_agreement(box: FloatBox, mask: BoxMask) -> float:
    """IoU, 0 to 1, of what a box has of the picture with the box of a mask."""
    inside = max(box[0], 0), max(box[1], 0), min(box[2], mask.width), min(box[3], mask.height)
    return iou_of_two(inside, mask.box)


def is_candidate(instance: Instance, scene: Scene, rule: PairSettings) -> bool:
    """Whether an instance may be chosen, before overlap is looked at."""
    x0, y0, x1, y1 = instance.box
    allowed = not instance.ignored and not (instance.crowd and rule.crowd == "drop")
    return is_large(instance, scene, rule) and allowed and x1 > x0 and y1 > y0


def is_large(instance: Instance, scene: Scene, rule: PairSettings) -> bool:
    """Whether an instance is large enough and of a wanted class."""
    large = instance.area > rule.min_area_ratio * (scene.width * scene.height)
    category, classes = instance.category, rule.classes
    return large and (not classes.include or category in classes.include) and category not in classes.exclude


def _choose_max_iou(instances: Sequence[Instance], rule: PairSettings) -> Group | Skip:
    boxes = np.array([instance.box for instance in instances], np.float64)
    pair, overlaps = most_overlapping(boxes, box_iou, is_nested if rule.contained == "drop" else None)
    if pair is None:
        return Skip("only_contained" if overlaps else "no_overlap")
    return grow(pair, boxes, rule)


def grow(pair: tuple[int, int], boxes: Boxes, rule: PairSettings) -> Group | Skip:
    """A pair and, one by one, the box (float [N, 4]) with the highest IoU with any member."""
    group, drop = list(pair), rule.contained == "drop"
    while len(group) < rule.objects:
        iou = box_iou(boxes[group], boxes)
        allowed = ~is_nested(boxes[group], boxes) if drop else np.ones_like(iou, np.bool_)
        best_iou = iou.max(axis=0) * allowed.all(axis=0)
        best_iou[group] = 0.0
        best = int(best_iou.argmax())
        if best_iou[best] <= 0:
            return Skip("group_too_small")
        group.append(best)
    return tuple(group)


def _choose_largest(instances: Sequence[Instance], rule: PairSettings) -> Group | Skip:
    order = sorted(range(len(instances)), key=lambda i: -instances[i].area)
    return take_largest(order, np.array([instance.box for instance in instances], np.float64), rule)


def take_largest(order: Sequence[int], boxes: Boxes, rule: PairSettings) -> Group | Skip:
    """The first boxes (float [N, 4]) of an order by size that may be together, of the largest such pair on."""
    if rule.objects == 1 or rule.contained == "keep":
        return tuple(order[: rule.objects])
    boxes = boxes[order]
    for first in range(len(boxes) - 1):
        apart = ~is_nested(boxes[first : first + 1], boxes[first + 1 :])[0]
        if apart.any():
            break
    else:
        return Skip("only_contained")
    group = [first, first + 1 + int(apart.argmax())]
    while len(group) < rule.objects:
        apart = ~is_nested(boxes, boxes[group]).any(axis=1)  # a member is nested in itself
        if not apart.any():
            return Skip("group_too_small")
        group.append(int(apart.argmax()))
    return tuple(order[k] for k in group)
