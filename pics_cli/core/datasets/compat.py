"""The research code's choice of a pair and its crop, with their faults, for `--compat`.

What its readers do differently is in `readers/compat.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.pairs import Boxes, Group, choose_among, is_large, most_overlapping
from pics_cli.core.datasets.scene import Instance, Scene, Skip
from pics_cli.core.images.geometry import Box, is_nested, shared_area
from pics_cli.core.images.masks import BoxMask
from pics_cli.core.recipes.dataset import DatasetRecipe, PairSettings
from pics_cli.core.recipes.sources import RenderedSource, SynthSource
from pics_cli.errors import PicsError

# The padding ratios among which the research code draws.
COMPAT_PADDING = (1.1, 1.2, 1.3, 1.4)
# Fewer set pixels, and the research code takes the whole image for the object.
_MIN_CROP_PIXELS = 10


def check_compat(recipe: DatasetRecipe) -> None:
    """Refuse recipes that the research code has no counterpart of.

    Raises:
        PicsError: drawn scenes, or another number of objects than two.
    """
    if isinstance(recipe.source, SynthSource | RenderedSource):
        raise PicsError(
            f"{recipe.name} is drawn: compat reproduces what the research code does with photographs",
            "build without --compat",
        )
    if recipe.pairs.objects != 2:
        raise PicsError(
            f"pairs.objects is {recipe.pairs.objects}: compat reproduces the research code, which takes two",
            "build without --compat, or with two objects",
        )


def choose_compat_group(scene: Scene, rule: PairSettings) -> Group | Skip:
    """The research code's choice: crowds and ignored objects count."""
    return choose_among(scene, rule, is_large, _choose_largest if rule.rule == "largest" else _choose_max_iou)


def compat_crop(mask: BoxMask) -> Box:
    """The part of the image that a patch shows: the mask's box without its last row and column."""
    if mask.area < _MIN_CROP_PIXELS:
        return 0, 0, mask.width, mask.height
    x0, y0, x1, y1 = mask.box
    return x0, y0, x1 - 1, y1 - 1


def _choose_largest(instances: Sequence[Instance], _rule: PairSettings) -> Group:
    """The two largest areas, the last of equals first."""
    order = np.argsort([instance.area for instance in instances], kind="stable")[::-1]
    return int(order[0]), int(order[1])


def _choose_max_iou(instances: Sequence[Instance], _rule: PairSettings) -> Group | Skip:
    """The pair with the highest IoU in float32, the first of equals; pairs that its nesting test finds do not count."""
    boxes_N4 = np.array([instance.box for instance in instances], np.float32)
    return most_overlapping(boxes_N4, _iou, _nested)[0] or Skip("no_overlap")


def _iou(a_N4: Boxes, b_M4: Boxes) -> Boxes:
    """float32 [N, M]: the research code's intersection over union, to the bit."""
    shared = shared_area(a_N4, b_M4)
    a_N, b_M = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a_N4, b_M4))
    union = a_N[:, None] + b_M[None] - shared
    iou: Boxes = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def _nested(a_N4: Boxes, b_M4: Boxes) -> npt.NDArray[np.bool_]:
    """bool [N, M]: the research code's nesting test, either way round.

    It is given corners and reads them as `x, y, width, height`, so it compares x0 + x1 and y0 + y1: whether the left
    and upper side lie inside and the centre is not further right or down. Most nested pairs pass for not nested.
    """
    a, b = (np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) for boxes in (a_N4, b_M4))
    return is_nested(a, b)
