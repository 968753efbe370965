"""A sample of a shard → what a training step sees of it: references cut and varied, boxes grown, hint and target.

K: objects, S: model size, R: reference size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from typing_extensions import NotRequired

from pics_cli.core.conditioning.layer_labels import agreement
from pics_cli.core.conditioning.network_inputs import FRAME, compose_hint
from pics_cli.core.conditioning.placement import inside, window
from pics_cli.core.images.cutouts import PATCH_SIZE, WHITE, cut_out
from pics_cli.core.images.geometry import Box, Letterbox, by_lower_edge, clip_box, scaled
from pics_cli.core.images.image_io import RGB, decode_alpha, decode_picture
from pics_cli.core.images.masks import BoxMask
from pics_cli.core.loading.augment import RGBA, Reference, cut_reference, grow, vary
from pics_cli.core.model.config import HintKind
from pics_cli.core.recipes.training_sections import AugmentSettings
from pics_cli.core.runtime.rng import generator
from pics_cli.core.shards.layouts import Parts, unpack
from pics_cli.errors import BadSample

Bytes = npt.NDArray[np.uint8]


class Arrays(TypedDict):
    """What a training step sees of a sample.

    Attributes:
        hint: uint8 [S, S, 3 L], `hint_rgb` of `compose`.
        target: uint8 [S, S, 3], the picture in the square, black around it.
        boxes: int16 [K, 4], where each object is painted, in the square; none is empty.
        content: int16 [4], the picture's part of the square.
        references: uint8 [K, R, R, 3] on white.
        agreement: uint8 [S, S], of hint `layers` alone: bit l set where picture l shows what the target shows, see
            `agreement`.
    """

    hint: Bytes
    target: Bytes
    boxes: npt.NDArray[np.int16]
    content: npt.NDArray[np.int16]
    references: Bytes
    agreement: NotRequired[Bytes]


def prepare(
    members: Mapping[str, bytes],
    *,
    set_name: str,
    key: str,
    augment: AugmentSettings,
    rng_keys: Sequence[str | int],
    seed: int,
    size: int,
    reference_size: int,
    hint: HintKind,
    fill: float = 1.0,
    window_size: int | None = None,
    swap: bool = False,
) -> Arrays:
    """Decode a sample's members and make what a training step sees.

    References are cut from the picture by their masks, or taken from the object's alternative view where the sample
    has one and the draw says so; the stored patches are not looked at. An alternative view shows what of the object is
    hidden in the picture, too: its box is then that of the mask with hidden parts, where there is one.

    Args:
        members: by extension, of either layout.
        set_name: with the key and `rng_keys`, what the draws are a function of.
        key: of the sample.
        augment: how references and boxes are varied.
        rng_keys: epoch and the like.
        seed: of the run.
        size: S.
        reference_size: R.
        hint: its kind.
        fill: share of a region's sides that a pasted object takes.
        window_size: what a window is measured by, see `ModelConfig`; None: S.
        swap: each object gets the reference of the one before it, the first that of the last.

    Raises:
        BadSample: a member is missing or damaged; a box that holds no pixel of the square.
    """
    parts = unpack(members)
    rgb = decode_picture(parts.picture).rgb
    height, width = rgb.shape[:2]
    detail = 0 if hint == "background" else size
    grown, references = list[Box](), list[Reference]()
    for k in range(len(parts.masks)):
        rng = generator(seed, "augment", set_name, key, *rng_keys, k)
        reference, shown = varied(parts, rgb, k, augment, rng, reference_size, detail)
        references.append(reference)
        grown.append(grow(shown.box, augment, rng))
    if swap:
        references = references[-1:] + references[:-1]
    behind = _without_objects(parts, rgb, hint)
    absent = generator(seed, "absent", set_name, key, *rng_keys).random() < augment.absent
    if absent:
        rgb, references = _clean(parts, rgb), [_nothing(reference_size)] * len(references)
    boxes = [clip_box(box, width, height) for box in grown]
    places = [clip_box(scaled(box, fill), width, height) for box in grown]
    part = x0, y0, x1, y1 = window(boxes, width, height, augment.crop, window_size or size)
    rgb, behind = rgb[y0:y1, x0:x1], behind[y0:y1, x0:x1]
    boxes, places, width, height = inside(boxes, part), inside(places, part), x1 - x0, y1 - y0
    letterbox = Letterbox(width, height, size)
    seen = np.array([letterbox.forward_box(box) for box in boxes], np.int16)
    _refuse_vanished(boxes, seen, letterbox)
    compose = partial(
        compose_hint,
        boxes=boxes,
        size=size,
        hint=hint,
        order=None if hint == "layers" else _back_to_front(parts.meta, boxes),
        places=places,
    )
    pasted = [reference.rgba for reference in references]
    arrays: Arrays = {
        "hint": compose(behind, references=pasted),
        "target": target(rgb, letterbox, hint),
        "boxes": seen,
        "content": np.array(letterbox.forward_box((0, 0, width, height)), np.int16),
        "references": np.stack([reference.patch for reference in references]),
    }
    if hint == "layers":
        visible = [np.zeros((height, width), np.bool_) if absent else mask.window(part) for mask in parts.masks]
        flat = partial(target, letterbox=letterbox, hint=hint)
        arrays["agreement"] = agreement(pasted, visible, lambda canvas, some: compose(canvas, references=some), flat)
    return arrays


def varied(
    parts: Parts,
    rgb: RGB,
    k: int,
    augment: AugmentSettings,
    rng: np.random.Generator,
    reference_size: int,
    detail: int = 0,
) -> tuple[Reference, BoxMask]:
    """The reference of object k: cut from the picture, or its alternative view where there is one; varied.

    Returns:
        It, and the mask of what it shows of the object.

    Raises:
        BadSample: the alternative view is damaged, or nothing of the object would be seen.
    """
    rgba = alternate(parts, k) if rng.random() < augment.alternate else None
    shown = parts.masks[k]
    if rgba is None:
        rgba = cut_reference(rgb, shown)
    else:
        shown = parts.full.get(k, shown)
    return vary(rgba, augment, rng, reference_size, detail=detail), shown


def target(rgb: RGB, letterbox: Letterbox, hint: HintKind) -> RGB:
    """The picture as the network is to paint it, uint8 [S, S, 3]: resized as the hint of this kind is."""
    return letterbox.forward(rgb, antialias=hint != "background")


def still(augment: AugmentSettings) -> AugmentSettings:
    """Without any variation, for validation; objects come from their alternative view if they mostly do in training."""
    middle = augment.box_growth[0] if augment.box_growth[0] == augment.box_growth[1] else 1.0
    return replace(
        augment,
        flip=0.0,
        rotation=0.0,
        perspective=0.0,
        scale=(FRAME, FRAME),
        brightness=0.0,
        contrast=0.0,
        alternate=float(augment.alternate >= 0.5),
        absent=0.0,
        box_growth=(middle, middle),
    )


def alternate(parts: Parts, k: int) -> RGBA | None:
    """The object seen differently, uint8 [h, w, 4], cropped to it; None where the sample has no such view.

    Raises:
        BadSample: it is damaged, or shows nothing.
    """
    data = parts.others.get(f"alt{k}.png")
    if data is None:
        return None
    try:
        rgba = decode_alpha(data, (PATCH_SIZE, PATCH_SIZE))
    except BadSample as error:
        raise BadSample("bad_reference", f"alt{k}.png: {error.detail}") from None
    if not rgba[..., 3].any():
        raise BadSample("bad_reference", f"alt{k}.png is wholly transparent")
    return cut_out(rgba)


def _without_objects(parts: Parts, rgb: RGB, hint: HintKind) -> RGB:
    """What the hint is made of: the background without the objects where the sample has it, as a user's background is.

    Else the picture itself, which shows of the objects what lies outside their boxes, such as shadows.
    """
    if "clean.jpg" not in parts.others and hint in ("overlay", "layers"):
        why = f"hint {hint} needs clean.jpg, the background without the objects: the picture shows the answer"
        raise BadSample("no_clean", f"{why}; take hint collage for this set")
    return _clean(parts, rgb)


def _clean(parts: Parts, rgb: RGB) -> RGB:
    """The background without the objects where the sample has it, else the picture."""
    found = clean_picture(parts, rgb.shape[1::-1])
    return rgb if found is None else found


def clean_picture(parts: Parts, size: tuple[int, int]) -> RGB | None:
    """The background without the objects, of the picture's (width, height); None where the sample has none.

    Raises:
        BadSample: `bad_clean`.
    """
    data = parts.others.get("clean.jpg")
    if data is None:
        return None
    try:
        return decode_picture(data, size).rgb
    except BadSample as error:
        raise BadSample("bad_clean", f"clean.jpg: {error.detail}") from None


def _nothing(reference_size: int) -> Reference:
    """No object: white all over."""
    white = np.full((reference_size, reference_size, 3), WHITE, np.uint8)
    return Reference(white, white)


def _back_to_front(meta: Mapping[str, Any], boxes: Sequence[Box]) -> list[int]:
    """Indices of the objects from back to front: as the json says where it does, else as inference's `auto`."""
    order = front_to_back(meta, len(boxes))
    return by_lower_edge(boxes) if order is None else order[::-1]


def front_to_back(meta: Mapping[str, Any], count: int) -> list[int] | None:
    """The true order of a sample's objects; None where its json does not say it.

    Raises:
        BadSample: `bad_json`.
    """
    order = meta.get("order")
    if order is None:
        return None
    whole = isinstance(order, list) and all(type(k) is int for k in order)
    if not whole or sorted(order) != list(range(count)):
        raise BadSample("bad_json", f"order {order} does not name each of {count} objects once")
    return list(order)


def _refuse_vanished(boxes: Sequence[Box], seen: npt.NDArray[np.int16], letterbox: Letterbox) -> None:
    """As inference does: an object without a pixel of its own would be learnt from what it does not show."""
    for k in np.flatnonzero((seen[:, 2:] <= seen[:, :2]).any(axis=1)).tolist():
        x0, y0, x1, y1 = boxes[k]
        shown = f"the region of object {k} is {x1 - x0}x{y1 - y0} pixels"
        square = f"{letterbox.size}x{letterbox.size}"
        raise BadSample(
            "tiny_region", f"{shown}, less than one in the {square} that the model sees of {letterbox.side}"
        )
