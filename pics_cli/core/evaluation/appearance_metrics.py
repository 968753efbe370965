"""Metrics of what objects look like, by descriptors (see `descriptor`): is each object like its own reference?

K: objects, d: width of a descriptor. Similarities are dot products of descriptors: row i is what a picture shows of
object i, column j the reference of object j. A metric is None where it is undefined for the example.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.evaluation.descriptor import Floats, describe, describe_references
from pics_cli.core.evaluation.examples import Example
from pics_cli.core.images.image_io import RGB
from pics_cli.core.runtime.rng import generator

# References that an object is compared with: its own, those of its example, and others of the gallery.
CHOICES = 16


class ReferenceGallery(NamedTuple):
    """References of distractors, which `identity` draws from.

    Attributes:
        descriptors: float32 [n, d].
        owners: key of the example that each is of, [n].
        seed: of the draw among them.
    """

    descriptors: Floats
    owners: npt.NDArray[np.str_]
    seed: int


def build_reference_gallery(distractors: Sequence[Example], seed: int) -> ReferenceGallery:
    """The gallery of some examples' references."""
    if not distractors:
        return ReferenceGallery(np.zeros((0, 1), np.float32), np.zeros(0, np.str_), seed)
    descriptors = np.concatenate([describe_references(example.references) for example in distractors])
    owners = [example.key for example in distractors for _ in example.references]
    return ReferenceGallery(descriptors, np.array(owners), seed)


def describe_objects(picture: RGB, example: Example) -> Floats:
    """Descriptors of what a picture shows where each object is seen in the truth, float32 [K, d]; 0 of hidden ones."""
    descriptors = [
        describe(picture, mask, box) if mask.any() else None
        for mask, box in zip(example.visible_masks, example.paste_boxes, strict=True)
    ]
    width = next((len(known) for known in descriptors if known is not None), 1)
    return np.stack([np.zeros(width, np.float32) if known is None else known for known in descriptors])


def identity(objects: Floats, references: Floats, example: Example, gallery: ReferenceGallery) -> float | None:
    """Share of the visible objects that look most like their own reference among 16.

    The other 15 are those of the example's other objects, and some drawn from the gallery; None where that has too few,
    or the example has more than 16 objects.
    """
    others = gallery.descriptors[gallery.owners != example.key]
    count = CHOICES - len(references)
    if not 0 <= count <= len(others):
        return None
    right = []
    for k, mask in enumerate(example.visible_masks):
        if mask.any():
            drawn = generator(gallery.seed, "identity", example.key, k).choice(len(others), count, replace=False)
            rivals = np.concatenate([np.delete(references, k, axis=0), others[drawn]])
            right.append(bool(references[k] @ objects[k] > (rivals @ objects[k]).max()))
    return _mean(right)


def assignment(similarity: Floats) -> float | None:
    """Share of the objects nearest to their own reference of the example's; None of a single one."""
    return _mean(similarity.argmax(1) == np.arange(len(similarity))) if len(similarity) > 1 else None


def leak(similarity: Floats, truth_similarity: Floats) -> float | None:
    """Mean similarity to the other objects' references, above the truth's."""
    return _mean((similarity - truth_similarity)[~np.eye(len(similarity), dtype=np.bool_)])


def ceiling(similarity: Floats, truth_similarity: Floats) -> float | None:
    """Mean similarity to the own reference beyond what the truth reaches: a copy, not a view."""
    return _mean(np.maximum(np.diag(similarity - truth_similarity), 0))


def _mean(values: Sequence[bool] | npt.NDArray[np.bool_ | np.floating[Any]]) -> float | None:
    return float(np.asarray(values, np.float64).mean()) if len(values) else None
