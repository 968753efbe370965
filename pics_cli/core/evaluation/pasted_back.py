"""Objects pasted back into their own clean plate, in their own light: what a method changes in them does harm."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from pics_cli.core.evaluation.examples import Example
from pics_cli.core.evaluation.source_base import ExampleSource
from pics_cli.core.evaluation.subsets import most_overlapping_pair
from pics_cli.core.images.geometry import clip_box, order_by_lower_edge, scale_box
from pics_cli.core.images.masks import box_mask
from pics_cli.core.loading.augment import cut_reference
from pics_cli.errors import BadSample


class PastedBack(ExampleSource):
    """Examples of another source with references that are cut out of the truth; see `paste_back`."""

    def __init__(self, source: ExampleSource, object_scale: float) -> None:
        self.source, self.object_scale = source, object_scale
        self.provenance = {**source.provenance, "references": "truth"}
        self.folders, self.warnings = source.folders, source.warnings

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> Example:
        return paste_back(self.source[number], self.object_scale)

    def distractors(self) -> list[Example]:
        """Those of the other source, cut out likewise."""
        cut = list[Example]()
        for example in self.source.distractors():
            with contextlib.suppress(BadSample):
                cut.append(paste_back(example, self.object_scale))
        return cut


def paste_back(example: Example, object_scale: float) -> Example:
    """An example whose references are what the truth shows of its objects: pasted as they are, they are right.

    Paste boxes are those of what is seen, so that no reference is resized, and regions, order and IoU follow from them.
    What is seen of one object covers nothing of another: there are no other orders.

    Args:
        example: with a true background.
        object_scale: share of a region's sides that an object takes.

    Raises:
        BadSample: `empty_mask` where nothing is seen of an object; `no_clean_plate` without a true background.
    """
    if not example.true_background:
        detail = f"{example.key}: the background behind the objects is not known, only filled in"
        raise BadSample("no_clean_plate", detail)
    if hidden := [k for k, mask in enumerate(example.visible_masks) if not mask.any()]:
        raise BadSample("empty_mask", f"{example.key}: nothing is seen of object {hidden[0]}")
    height, width = example.truth.shape[:2]
    masks = [box_mask(mask) for mask in example.visible_masks]
    boxes = tuple(mask.box for mask in masks)
    regions = tuple(clip_box(scale_box(box, 1 / object_scale), width, height) for box in boxes)
    return replace(
        example,
        references=tuple(cut_reference(example.truth, mask) for mask in masks),
        paste_boxes=boxes,
        regions=regions,
        order=tuple(order_by_lower_edge(regions)),
        overlaps=(),
        pasted_orders=(),
        iou=most_overlapping_pair(boxes)[2],
    )
