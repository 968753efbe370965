"""Network inputs of a sample, the same for training, inference and evaluation.

K: objects, L: layers of the control image, S: model size, R: reference size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from pics_cli.core.conditioning.shadow_inputs import ShadowInputs, prepare_shadow_maps, square_fade
from pics_cli.core.images.cutouts import WHITE, Fit, cut_out, is_blank, over_white, paste_object, premultiply
from pics_cli.core.images.geometry import Box, Letterbox, check_boxes, enclosing_box, order_by_lower_edge
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.inpainting import fill_hole
from pics_cli.core.images.masks import Mask
from pics_cli.core.model.config import HintKind

Bytes = npt.NDArray[np.uint8]

REFERENCE_SIZE = 224
# Side of a reference with alpha over its object's: the middle of what training patches are padded by (1.1 to 1.4).
REFERENCE_FRAME = 1.2
# Margin around the boxes that decides what fills them, in longer sides of the box around them all.
_FILL_MARGIN = 0.5


class NetworkInputs(NamedTuple):
    """Inputs of the network for one sample.

    Attributes:
        control_image: uint8 [S, S, 3 L], L layers one after the other; the network gets value / 127.5 - 1.
        control_mask: int8 [S, S]: 1 in the union of the boxes, 0 elsewhere, -1 in the padding.
        masks: bool [K, S, S]: each object's box, as the nearest pixels show it: nothing of a box that is thinner than
            a pixel of the square and falls between two.
        references: uint8 [K, R, R, 3], square, on white; the network gets value / 255.
        fade: float32 [S, S], see `region_fade`, for a model with shadows; else None.
    """

    control_image: RGB
    control_mask: npt.NDArray[np.int8]
    masks: Mask
    references: Bytes
    fade: npt.NDArray[np.float32] | None = None


def prepare_network_inputs(
    background: RGB,
    boxes: Sequence[Box],
    references: Sequence[Bytes],
    *,
    size: int,
    reference_size: int = REFERENCE_SIZE,
    hint: HintKind = "background",
    order: Sequence[int] | None = None,
    paste_boxes: Sequence[Box] | None = None,
    fit: Fit = "contain",
    shadows: ShadowInputs | None = None,
) -> NetworkInputs:
    """Make the network's inputs from a picture, the boxes to paint in and a picture of each object.

    The control image of kind `background` has the boxes blanked before anything is resized, and is resized bilinearly,
    bit for bit as published. `collage` has them filled smoothly from their surroundings, `overlay` leaves them; both
    then have each reference pasted into its paste box, with its aspect kept, in the middle, and are shrunk by area.
    `layers` is three pictures: `overlay`, the same pasted the other way round, front to back, and the background.

    Args:
        background: uint8 [H, W, 3].
        boxes: where each object may be painted, K of them inside the picture.
        references: K pictures, uint8 [h, w, 3] on white or [h, w, 4] with alpha; nothing is pasted of one that is white
            all over.
        size: S.
        reference_size: R.
        hint: kind of control image.
        order: indices of the objects, back to front, where it is known: `layers` then shows no other order. None:
            guessed from their lower edges.
        paste_boxes: where in its box each object is pasted; None: all over it.
        fit: how an object fits a paste box of another aspect; see `paste_object`.
        shadows: append the objects' shadow maps to a control image of kind `layers`: 2 J more channels, those of the
            objects back to front, then front to back.

    Raises:
        ValueError: no boxes; a box or paste box that is empty or reaches outside; another number of references or paste
            boxes than of boxes; a reference of another shape or dtype, or wholly transparent; an order that does not
            name each object once; an unknown kind.
    """
    control_image = prepare_control_image(
        background, boxes, references, size=size, hint=hint, order=order, paste_boxes=paste_boxes, fit=fit
    )
    patches = [prepare_reference(reference, reference_size) for reference in references]
    height, width = background.shape[:2]
    letterbox = Letterbox(width, height, size)
    fade = None
    if shadows is not None:
        maps = prepare_shadow_maps(letterbox, boxes, references, shadows, order=order, paste_boxes=paste_boxes, fit=fit)
        control_image = np.concatenate([control_image, maps], axis=2)
        fade = square_fade(boxes, letterbox, (1 - shadows.object_scale) / 2)
    control_mask = np.full((size, size), -1, np.int8)
    masks = np.zeros((len(boxes), size, size), np.bool_)
    x0, y0, x1, y1 = letterbox.forward_box((0, 0, width, height))
    control_mask[y0:y1, x0:x1] = 0
    for mask, box in zip(masks, boxes, strict=True):
        x0, y0, x1, y1 = letterbox.forward_box(box)
        mask[y0:y1, x0:x1] = True
        control_mask[y0:y1, x0:x1] = 1
    return NetworkInputs(control_image, control_mask, masks, np.stack(patches), fade)


def prepare_control_image(
    background: RGB,
    boxes: Sequence[Box],
    references: Sequence[Bytes],
    *,
    size: int,
    hint: HintKind = "background",
    order: Sequence[int] | None = None,
    paste_boxes: Sequence[Box] | None = None,
    fit: Fit = "contain",
) -> Bytes:
    """The control image alone, uint8 [S, S, 3 L]; arguments and errors as those of `prepare_network_inputs`."""
    letterbox = Letterbox(background.shape[1], background.shape[0], size)
    layers = []
    painters = layer_painters(background, boxes, references, hint=hint, order=order, paste_boxes=paste_boxes, fit=fit)
    for paint in painters:
        square = letterbox.pad(background)
        paint(letterbox.content(square))
        layers.append(letterbox.resize(square, antialias=hint != "background"))
    return layers[0] if len(layers) == 1 else np.concatenate(layers, axis=2)


def layer_painters(
    background: RGB,
    boxes: Sequence[Box],
    references: Sequence[Bytes],
    *,
    hint: HintKind,
    order: Sequence[int] | None = None,
    paste_boxes: Sequence[Box] | None = None,
    fit: Fit = "contain",
    objects: Sequence[Callable[[RGB], None] | None] | None = None,
) -> list[Callable[[RGB], None]]:
    """Functions that turn the background, uint8 [H, W, 3], into each of the L layers of the control image, in place.

    Arguments and errors are those of `prepare_network_inputs`, besides `objects`: what pastes each of the K objects
    instead of its reference; None: its reference.
    """
    height, width = background.shape[:2]
    boxes = _int_boxes(boxes)
    check_boxes(boxes, width, height)
    paste_boxes = boxes if paste_boxes is None else _int_boxes(paste_boxes)
    check_boxes(paste_boxes, width, height)
    back_to_front = order_by_lower_edge(boxes) if order is None else list(order)
    for name, values in (("references", references), ("paste boxes", paste_boxes)):
        if len(values) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes, but {len(values)} {name}")
    _check_pictures(background, references)
    if sorted(back_to_front) != list(range(len(boxes))):
        raise ValueError(f"order {back_to_front} does not name each of {len(boxes)} objects once, counted from 0")

    def blank(canvas: RGB) -> None:
        for x0, y0, x1, y1 in boxes:
            canvas[y0:y1, x0:x1] = 0

    def keep(canvas: RGB) -> None:
        """The layer of the background as it is."""

    def paste(canvas: RGB, order: Sequence[int] = back_to_front) -> None:
        for k in order:
            cutout, replacement = cutouts[k], objects[k] if objects is not None else None
            if replacement is not None:
                replacement(canvas)
            elif cutout is not None:
                paste_object(canvas, paste_boxes[k], cutout, fit, boxes[k])

    def fill_and_paste(canvas: RGB) -> None:
        _fill_boxes(canvas, boxes)
        paste(canvas)

    if hint == "background":
        return [blank]
    cutouts = [None if is_blank(reference) else cut_out(reference) for reference in references]
    if hint == "collage":
        return [fill_and_paste]
    if hint == "overlay":
        return [paste]
    if hint == "layers":
        second = partial(paste, order=back_to_front[::-1]) if order is None else paste
        return [paste, second, keep]
    raise ValueError(f"hint {hint!r} is none of {', '.join(get_args(HintKind))}")


def prepare_reference(picture: Bytes, size: int = REFERENCE_SIZE, frame: float = REFERENCE_FRAME) -> RGB:
    """An object's picture for the encoder: on white, padded to a centred square, resized bilinearly.

    Args:
        picture: uint8 [h, w, 3] as it is; or [h, w, 4], cropped to the object, with some white around it.
        size: R.
        frame: side of the result over the longer side of an object with alpha, at least 1.

    Returns:
        uint8 [R, R, 3].
    """
    if picture.shape[2] == 4:
        rgba = cut_out(picture)
        height, width = int(rgba.shape[0] * frame), int(rgba.shape[1] * frame)
        top, left = (height - rgba.shape[0]) // 2, (width - rgba.shape[1]) // 2
        picture = np.full((height, width, 3), WHITE, np.uint8)
        picture[top : top + rgba.shape[0], left : left + rgba.shape[1]] = over_white(premultiply(rgba))
    return Letterbox(picture.shape[1], picture.shape[0], size).forward(picture, fill=WHITE)


def _int_boxes(boxes: Sequence[Box]) -> list[Box]:
    """Boxes as Python integers: those of NumPy may overflow."""
    return [(int(x0), int(y0), int(x1), int(y1)) for x0, y0, x1, y1 in boxes]


def _check_pictures(background: RGB, references: Sequence[Bytes]) -> None:
    if background.dtype != np.uint8 or background.ndim != 3 or background.shape[2] != 3:
        raise ValueError(f"background is {background.dtype} {background.shape}, expected uint8 [H, W, 3]")
    for k, reference in enumerate(references):
        if reference.dtype != np.uint8 or reference.ndim != 3 or reference.shape[2] not in (3, 4) or not reference.size:
            got = f"{reference.dtype} {reference.shape}"
            raise ValueError(f"reference {k} is {got}, expected uint8 [h, w, 3] or [h, w, 4]")
        if reference.shape[2] == 4 and not reference[..., 3].any():
            raise ValueError(f"reference {k} is wholly transparent")


def _fill_boxes(canvas: RGB, boxes: Sequence[Box]) -> None:
    """Fill the boxes from what surrounds them, in place."""
    height, width = canvas.shape[:2]
    left, top, right, bottom = enclosing_box(boxes)
    margin = int(np.ceil(_FILL_MARGIN * max(right - left, bottom - top)))
    left, top = max(left - margin, 0), max(top - margin, 0)
    part = canvas[top : min(bottom + margin, height), left : min(right + margin, width)]
    hole = np.zeros(part.shape[:2], np.bool_)
    for x0, y0, x1, y1 in boxes:
        hole[y0 - top : y1 - top, x0 - left : x1 - left] = True
    part[:] = fill_hole(part, hole)
