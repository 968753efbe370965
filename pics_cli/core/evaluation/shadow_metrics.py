"""Metrics of shadows: pure functions of luminance, float32 [H, W] in 0..255, and masks, bool [H, W].

Ground: what lies in the regions and is no object. It is in shadow where a picture is darker than the empty scene by
`SHADOW_STEPS` or more. A metric is None where it is undefined for the example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.evaluation.pixel_metrics import MIN_PIXELS, Floats
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask

# A pixel is in shadow where the truth is darker than the empty scene by this many 8-bit steps, and free of it where the
# two differ by no more than one: grain is the same in both.
SHADOW_STEPS, LIT_STEPS = 4.0, 1.0
# Ground this near to an object, in pixels, is not judged: the object's edge is mixed with it.
OBJECT_MARGIN = 2
# Of an object's height: its foot, below which it must touch its shadow, and how far below it.
_FOOT, _BELOW = 0.25, 0.04
# An object stands on a point so far above its lowest pixel, as a share of its height.
_STANDS = 0.06
# The direction of a shadow goes by its pixels of this share of its depth or more (the 95th percentile): the rest is
# penumbra, and light that the object keeps from the ground all around it. It is unclear where its centre is nearer to
# the foot than this share of the object's size (root of its area).
_CORE, _MIN_REACH = 0.5, 0.25
# Two shadows of the truth that differ by more degrees than these are not told apart, or fall on other things.
_MAX_ANGLE = 45.0

Vector = npt.NDArray[np.float64]


def ground_of(objects: Sequence[Mask], inside: Mask) -> Mask:
    """Pixels of U that are 2 pixels or more away from every object: bool [H, W]."""
    solid = np.any(np.stack(objects), axis=0).astype(np.uint8)
    grown = cv2.dilate(solid, np.ones((2 * OBJECT_MARGIN + 1,) * 2, np.uint8))
    free: Mask = inside & (grown == 0)
    return free


def ground_error(values: Floats, expected: Floats, where: Mask) -> float | None:
    """Mean of |Y(X) - Y(T)| over some ground; None of fewer than 16 pixels."""
    if np.count_nonzero(where) < MIN_PIXELS:
        return None
    return float(np.abs(values[where] - expected[where]).mean())


def shadow_rmse(result: RGB, truth: RGB, shaded: Mask) -> float | None:
    """Root of the mean of D² over a shadow's pixels and the three channels, in 8-bit steps; None of fewer than 16."""
    if np.count_nonzero(shaded) < MIN_PIXELS:
        return None
    return math.sqrt(float(np.mean((result[shaded].astype(np.float32) - truth[shaded]) ** 2, dtype=np.float64)))


def balanced_error(found: Mask, expected: Mask, ground: Mask) -> float | None:
    """Balanced error rate of a shadow, 1 - (TP / P + TN / N) / 2 over the ground; 0.5 is that of no shadow at all.

    None where either kind of ground has fewer than 16 pixels in the truth.
    """
    shaded, lit = ground & expected, ground & ~expected
    positive, negative = np.count_nonzero(shaded), np.count_nonzero(lit)
    if min(positive, negative) < MIN_PIXELS:
        return None
    wrong = 1 - np.count_nonzero(found & shaded) / positive, np.count_nonzero(found & lit) / negative
    return sum(wrong) / 2


def ground_below(objects: Sequence[Mask], inside: Mask) -> Mask:
    """Ground right below the lowest quarter of each object, down to 4 % of its height (3 pixels at least), bool [H, W].

    Args:
        objects: all pixels of each, with hidden and mixed ones.
        inside: union of the regions.
    """
    below = np.zeros_like(inside)
    for mask in objects:
        _, y, _, height = cv2.boundingRect(mask.view(np.uint8))
        reach = max(OBJECT_MARGIN + 1, round(_BELOW * height))
        grown = cv2.dilate(mask.view(np.uint8), np.ones((reach + 1, 1), np.uint8), anchor=(0, reach))
        foot = math.ceil(y + (1 - _FOOT) * height)
        below[foot:] |= grown[foot:] > 0
    free: Mask = below & inside
    for mask in objects:
        free &= ~mask
    return free


def shadow_contact(shadow: Mask, below: Mask) -> float | None:
    """Share of ground right below the objects (see `ground_below`) that is in shadow; None of fewer than 16 pixels."""
    count = np.count_nonzero(below)
    return np.count_nonzero(shadow & below) / count if count >= MIN_PIXELS else None


def nearest_ground(objects: Sequence[Mask], ground: Mask) -> list[Mask]:
    """The ground of each object: nearer to it than to the others, in pixels."""
    distances = [cv2.distanceTransform(1 - mask.view(np.uint8), cv2.DIST_L2, 3) for mask in objects]
    nearest = np.argmin(np.stack(distances), axis=0)
    return [ground & (nearest == k) for k in range(len(objects))]


def shadow_direction(darker: Floats, mask: Mask, ground: Mask) -> Vector | None:
    """From the point where an object stands to the centre of its shadow, [2] as x and y in pixels.

    The centre is the mean of the shadow's core, weighted by its darkness.

    Args:
        darker: Y(C) - Y(I) of a picture I.
        mask: of the whole object.
        ground: where its shadow is looked for.

    Returns:
        None where it is unclear: fewer than 16 pixels of shadow, or a centre near the foot.
    """
    rows, columns = np.nonzero(ground & (darker >= SHADOW_STEPS))
    if len(rows) < MIN_PIXELS or not mask.any():
        return None
    depth = darker[rows, columns]
    core = depth >= _CORE * np.percentile(depth, 95)
    centre = np.average(np.stack([columns[core], rows[core]]), axis=1, weights=depth[core])
    _, y, _, height = cv2.boundingRect(mask.view(np.uint8))
    foot = np.nonzero(mask[math.ceil(y + (1 - _FOOT) * height) :])[1]
    stand = np.array([foot.mean(), y + height - 1 - _STANDS * height])
    direction: Vector = centre - stand
    return direction if np.hypot(*direction) >= _MIN_REACH * math.sqrt(np.count_nonzero(mask)) else None


def shadow_angle(darker: Floats, masks: Sequence[Mask], grounds: Sequence[Mask]) -> float | None:
    """Angle from the direction of the first of two objects' shadows to that of the second, in degrees, -180 to 180.

    Arguments as in `shadow_direction`, of two objects each. None where one of them is unclear.
    """
    first, second = (shadow_direction(darker, *one) for one in zip(masks, grounds, strict=True))
    if first is None or second is None:
        return None
    return math.degrees(math.atan2(first[0] * second[1] - first[1] * second[0], float(first @ second)))


def light_disagreement(angle: float | None, true_angle: float | None) -> float | None:
    """How much farther apart two shadows point than they do in the truth, in degrees, 0 to 180: one lamp casts both.

    None where one of the angles is unknown, or the truth's is more than 45 degrees.
    """
    if angle is None or true_angle is None or abs(true_angle) > _MAX_ANGLE:
        return None
    return abs((angle - true_angle + 180) % 360 - 180)
