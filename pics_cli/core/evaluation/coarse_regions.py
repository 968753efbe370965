"""Regions that are drawn carelessly, as users draw them: larger than the objects, or around them by hand.

Models are given these; metrics go by the true regions, but for what may not change, see `Example.allowed`.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import cv2
import numpy as np

from pics_cli.core.evaluation.examples import Example
from pics_cli.core.evaluation.source_base import ExampleSource
from pics_cli.core.images.geometry import Box, clip_box, enclosing_box, scale_box
from pics_cli.core.images.masks import Mask
from pics_cli.core.recipes.evaluation import GivenRegions
from pics_cli.core.runtime.rng import generator

# A blob's outline is up to this share of its distance from the middle farther out than the object's, half of it in the
# mean; waves around it: one shifts it, two stretch it, three make it uneven.
REACH, _WAVES = 0.4, (1, 2, 3)


class CoarseRegions(ExampleSource):
    """Examples of another source with the regions that a recipe has models given."""

    def __init__(self, source: ExampleSource, given: GivenRegions, seed: int, object_scale: float) -> None:
        self.source, self.given, self.seed, self.object_scale = source, given, seed, object_scale
        self.provenance = {**source.provenance, "regions": asdict(given)}
        self.folders, self.warnings = source.folders, source.warnings

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> Example:
        """Raises BadSample."""
        return give_regions(self.source[number], self.given, self.seed, self.object_scale)

    def distractors(self) -> list[Example]:
        """Those of the other source: only their references are used."""
        return self.source.distractors()


def give_regions(example: Example, given: GivenRegions, seed: int, object_scale: float) -> Example:
    """An example with the regions that models are given; each contains the true one.

    Args:
        example: whose regions are the true ones.
        given: how they are drawn.
        seed: of the shapes, with the example's key and the object's number.
        object_scale: share of a region's sides that an object takes.
    """
    boxes, masks = example.paste_boxes, example.full_masks or example.visible_masks
    if given.shape == "blob":
        drawn = enumerate(zip(masks, boxes, strict=True))
        boxes = tuple(blob_box(mask, box, generator(seed, "blob", example.key, k)) for k, (mask, box) in drawn)
    boxes = tuple(scale_box(box, given.grow) for box in boxes)
    height, width = example.truth.shape[:2]
    regions = tuple(clip_box(scale_box(box, 1 / object_scale), width, height) for box in boxes)
    return replace(example, given_boxes=boxes, given_regions=regions)


def blob_box(mask: Mask, box: Box, rng: np.random.Generator) -> Box:
    """The box of a smooth random shape around an object, for a region is the box of the mask that is drawn.

    The shape is the convex hull of the object's mask, each point moved away from the middle m of its box:
    p' = m + (p - m) (1 + REACH n(t)), with n(t) = 1/2 + 1/6 of the sum of sin(k t + phase_k) over k = 1, 2, 3, which is
    0 to 1, at the angle t of p - m.

    Args:
        mask: of the object, bool [H, W].
        box: of the object, which the result contains; it may leave the picture.
        rng: draws the phases.
    """
    phases = rng.uniform(0, 2 * np.pi, len(_WAVES))
    if not mask.any():
        return box
    x0, y0, x1, y1 = box
    middle = np.array([x0 + x1, y0 + y1]) / 2
    hull = cv2.convexHull(cv2.findNonZero(mask.view(np.uint8)))[:, 0] + 0.5 - middle
    angles = np.arctan2(hull[:, 1], hull[:, 0])
    waves = np.mean([np.sin(k * angles + phase) for k, phase in zip(_WAVES, phases, strict=True)], axis=0)
    moved = middle + hull * (1 + REACH * (1 + waves) / 2)[:, None]
    (left, top), (right, bottom) = np.floor(moved.min(axis=0)), np.ceil(moved.max(axis=0))
    return enclosing_box([box, (int(left), int(top), int(right), int(bottom))])
