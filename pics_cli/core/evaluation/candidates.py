"""Candidates of one composite against each other, without a truth: what is measured of each, and which is best.

X: the candidate, C: the background without objects, P: the background with the objects pasted as they are, P': the same
in the other order. All uint8 [h, w, 3], of the part around the regions. K: objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from pics_cli.core.evaluation.descriptor import describe
from pics_cli.core.evaluation.pixel_metrics import (
    MIN_COLOUR_DISTANCE,
    MIN_DIFFERENT_PIXELS,
    MIN_PIXELS,
    luminance,
    seam_error,
    weighted_lab,
)
from pics_cli.core.evaluation.shadow_metrics import SHADOW_STEPS, ground_below, ground_of, shadow_contact
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask
from pics_cli.core.inference.pick import PastedScene, Score

# Metrics of a candidate: which of two values is better, and the step that values are rounded to; less is no difference.
BETTER: dict[str, tuple[Literal["more", "less"], float]] = {
    "seam": ("less", 0.1),
    "order": ("more", 0.01),
    "leak": ("less", 0.1),
    "contact": ("more", 0.01),
    "copy_paste": ("less", 0.01),
    "likeness": ("more", 0.01),
    "lamp": ("less", 1.0),
}
# Alpha from which on a pixel is the object's alone.
_SOLID = 250
# 8-bit steps by which a pixel may differ from the paste and still count as nothing but it.
_PASTE_STEPS = 2


def judge(scene: PastedScene, pictures: Iterable[RGB], lamps: Sequence[float | None]) -> list[Score]:
    """Measure and rank the candidates of a composite.

    Args:
        scene: what they were made from.
        pictures: the candidates, uint8 [h, w, 3] each, by number.
        lamps: how far the lamp of each is from the scene's, in degrees; None where that is not known.
    """
    return rank([measure(picture, scene, lamp) for picture, lamp in zip(pictures, lamps, strict=True)])


def measure(picture: RGB, scene: PastedScene, lamp: float | None = None) -> dict[str, float | None]:
    """Values of all metrics, rounded; None where one is undefined. Formulas: docs/metrics.md."""
    values = {
        "seam": seam_error(picture, scene.background, scene.inside).mean,
        "order": order_agreement(picture, scene) if scene.is_ordered else None,
        "leak": unexplained_change(picture, scene),
        "contact": contact(picture, scene),
        "copy_paste": pasted_share(picture, scene),
        "likeness": likeness(picture, scene),
        "lamp": lamp,
    }
    return {
        name: None if value is None else round(round(value / BETTER[name][1]) * BETTER[name][1], 6)
        for name, value in values.items()
    }


def rank(measured: Sequence[Mapping[str, float | None]]) -> list[Score]:
    """Rank candidates by the mean of their ranks by each metric; of equal ones the lower number comes first.

    Args:
        measured: values of the metrics in `BETTER`, of each candidate by number. A metric that is undefined for one of
            them has no part in it.

    Returns:
        Scores by rank.
    """
    ranks: list[dict[str, float]] = [{} for _ in measured]
    for name, (better, _) in BETTER.items():
        values = [one[name] for one in measured]
        known = np.array([value for value in values if value is not None])
        if len(known) < len(values):
            continue
        known = -known if better == "more" else known
        for number, value in enumerate(known):
            ranks[number][name] = 0.5 + float((known < value).sum()) + float((known == value).sum()) / 2
    means = [float(np.mean([*own.values()])) if own else 1.0 for own in ranks]
    order = sorted(range(len(measured)), key=lambda number: (round(means[number], 9), number))
    return [
        Score(
            candidate=number,
            rank=place,
            mean_rank=round(means[number], 3),
            metrics={name: value for name, value in measured[number].items() if value is not None},
            ranks=ranks[number],
        )
        for place, number in enumerate(order, 1)
    ]


def order_agreement(picture: RGB, scene: PastedScene) -> float | None:
    """Share of the overlaps' pixels that are nearer to P than to P', by colour as `is_order_right` compares it.

    Judged where several objects are solid and P and P' differ by 4 or more; None of fewer than 60 such pixels.
    """
    both = (scene.alphas >= _SOLID).sum(axis=0) > 1
    own, right, wrong = (weighted_lab(rgb) for rgb in (picture, *scene.pastes))
    judged = both & (np.abs(right - wrong).sum(axis=2) >= MIN_COLOUR_DISTANCE)
    if np.count_nonzero(judged) < MIN_DIFFERENT_PIXELS:
        return None
    nearer = np.abs(own - right).sum(axis=2) < np.abs(own - wrong).sum(axis=2)
    return float(nearer[judged].mean())


def unexplained_change(picture: RGB, scene: PastedScene) -> float | None:
    """Mean change of the ground in the regions that no shadow explains, in 8-bit steps.

    Of a pixel it is the mean over channels of |X - s C|, s from 0 to 1 being the shade that leaves least of squares.
    Ground is 2 pixels or more away from every object.
    """
    ground = _ground(scene)
    if np.count_nonzero(ground) < MIN_PIXELS:
        return None
    own, clean = picture[ground].astype(np.float32), scene.background[ground].astype(np.float32)
    shade = np.clip((own * clean).sum(axis=1) / np.maximum((clean**2).sum(axis=1), 1), 0, 1)
    return float(np.abs(own - shade[:, None] * clean).mean())


def contact(picture: RGB, scene: PastedScene) -> float | None:
    """Share of the ground right below the objects that is in shadow, Y(C) - Y(X) >= 4: nothing floats."""
    below = ground_below([alpha > 0 for alpha in scene.alphas], scene.inside)
    return shadow_contact(luminance(scene.background) - luminance(picture) >= SHADOW_STEPS, below)


def pasted_share(picture: RGB, scene: PastedScene) -> float | None:
    """Share of the objects' pixels that are those of P or P' to within 2 steps in every channel: a bare paste."""
    solid = np.any(scene.alphas >= _SOLID, axis=0)
    if not solid.any():
        return None
    own = picture[solid].astype(np.int16)
    distances = [np.abs(own - paste[solid]).max(axis=1) for paste in scene.pastes]
    return float((np.minimum(*distances) <= _PASTE_STEPS).mean())


def likeness(picture: RGB, scene: PastedScene) -> float | None:
    """Mean similarity of the objects in X to themselves in P, by descriptor, where no other covers them."""
    solid = scene.alphas >= _SOLID
    count = (scene.alphas > 0).sum(axis=0)
    alone = [mask & (count == 1) for mask in solid]
    similarities = [
        float(describe(picture, mask) @ describe(scene.pastes[0], mask))
        for mask in alone
        if np.count_nonzero(mask) >= MIN_PIXELS
    ]
    return float(np.mean(similarities)) if similarities else None


def _ground(scene: PastedScene) -> Mask:
    if not len(scene.alphas):
        return np.zeros_like(scene.inside)
    return ground_of([alpha > 0 for alpha in scene.alphas], scene.inside)
