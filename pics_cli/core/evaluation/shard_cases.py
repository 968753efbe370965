"""Samples of shards as cases: each picture to be rebuilt from its references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pics_cli.core.data.augment import cut_reference
from pics_cli.core.data.cutouts import paste
from pics_cli.core.data.fill import push_pull
from pics_cli.core.data.layouts import Parts, unpack
from pics_cli.core.data.masks import Mask
from pics_cli.core.data.pictures import RGB, decode_picture
from pics_cli.core.data.training_sample import alternate, clean_picture, front_to_back
from pics_cli.core.evaluation.case import Bytes, Case
from pics_cli.core.evaluation.figures import union
from pics_cli.core.evaluation.strata import judged_relation, nearest
from pics_cli.core.geometry import Box, by_lower_edge, clip_box, scaled

CONTAINING = "containing"


def case_of(key: str, members: Mapping[str, bytes], fill: float) -> Case:
    """A sample as a case.

    References are the objects seen differently where the sample has that, else cut from the picture itself. The
    background is the picture without objects where the sample has one, else the picture with its regions filled
    smoothly from what surrounds them.

    Args:
        key: of the sample.
        members: by extension, of either layout.
        fill: share of a region's sides that the object's place takes.

    Raises:
        BadSample: a member is missing or damaged.
    """
    parts = unpack(members)
    truth = decode_picture(parts.picture).rgb
    height, width = truth.shape[:2]
    masks = parts.masks
    shown = [parts.full.get(k, mask) for k, mask in enumerate(masks)]
    references = tuple(_reference(parts, truth, k) for k in range(len(masks)))
    places = tuple(each.box for each in shown)
    regions = tuple(clip_box(scaled(place, 1 / fill), width, height) for place in places)
    visible = tuple(mask.full() for mask in masks)
    full = tuple(each.full() for each in shown) if len(parts.full) == len(masks) else None
    order = front_to_back(parts.meta, len(masks))
    front = None if order is None else tuple(order)
    *pair, iou = nearest(places)
    relation = (_relation(parts, pair) if front is not None else None) or judged_relation(places, visible)
    clean = clean_picture(parts, (width, height))
    background = push_pull(truth, union(regions, height, width)) if clean is None else clean
    wrong = () if full is None or front is None else _wrong(truth, places, references, full, front, relation)
    return Case(
        key=key, background=background, truth=truth, references=references, places=places, regions=regions,
        order=tuple(by_lower_edge(regions)), visible=visible, full=full, clean=clean is not None, wrong=wrong,
        front=front, relation=relation, iou=iou,
    )  # fmt: skip


def _reference(parts: Parts, truth: RGB, k: int) -> Bytes:
    other = alternate(parts, k)
    return cut_reference(truth, parts.masks[k]) if other is None else other


def _relation(parts: Parts, pair: Sequence[int]) -> str | None:
    """What a drawn sample says of two of its objects."""
    for entry in parts.meta.get("pairs") or ():
        if sorted(entry.get("objects", ())) == sorted(pair):
            return str(entry.get("relation"))
    return None


def _wrong(
    truth: RGB,
    places: Sequence[Box],
    references: Sequence[Bytes],
    full: Sequence[Mask],
    front: tuple[int, ...],
    relation: str,
) -> tuple[RGB, ...]:
    """The truth with two objects in other orders, drawn with their references where both are.

    The other one in front; of an object inside another either one in front, for the truth is neither.
    """
    if len(places) != 2:
        return ()
    both = full[0] & full[1]
    if not both.any():
        return ()
    found = []
    for k in front if relation == CONTAINING else front[1:]:
        pasted = truth.copy()
        paste(pasted, places[k], references[k])
        found.append(np.where(both[..., None], pasted, truth))
    return tuple(found)
