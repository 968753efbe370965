"""From a sample to the network's inputs, and to what pasting the network's picture back needs.

K: objects, S: model size, h, w: sides of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from pics_cli.core.conditioning.alphas import joint_alpha, pasted_alphas
from pics_cli.core.conditioning.network_inputs import NetworkInputs, layer_painters, prepare_network_inputs
from pics_cli.core.conditioning.placement import choose_window, fit_paste_boxes, grow_regions, to_window
from pics_cli.core.conditioning.shadow_inputs import ShadowInputs, paste_orders
from pics_cli.core.images.cutouts import Fit, crop_to_opaque, cut_out, fitted_size, is_blank
from pics_cli.core.images.geometry import Box, Letterbox, enclosing_box
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.lighting import Lighting
from pics_cli.core.images.masks import Mask
from pics_cli.core.inference.blend import Painters
from pics_cli.core.inference.match import MatchedObjects
from pics_cli.core.inference.part_shadows import PartShadows, part_shadows
from pics_cli.core.inference.paste import feather_width
from pics_cli.core.inference.sample import (
    Bytes,
    CompositeOptions,
    CompositeSample,
    back_to_front,
    drop_opaque_alpha,
    gate_bias,
)
from pics_cli.core.model.config import ModelConfig
from pics_cli.errors import BadSample


class PreparedSample(NamedTuple):
    """A sample with the network's inputs and what pasting the network's picture back needs.

    Attributes:
        window: what the network sees of the background.
        boxes: in the window's pixels.
        order: of the objects, back to front.
        known_order: the same where the sample lists the objects in order, else None.
        gate_bias: added to each object's logit in the interaction gate; None: nothing is.
        feather: in pixels of the background.
        inputs: of the network, with all objects.
        candidates: numbers of the pictures that are made of these inputs: all of the sample's, or one, where each has a
            light of its own.
        lighting: by which shadows are cast; None where the model casts none.
        unguided: objects whose region falls between the latent's cells.
        shares: see `object_shares`.
    """

    sample: CompositeSample
    window: Box
    boxes: list[Box]
    order: list[int]
    known_order: list[int] | None
    gate_bias: list[float] | None
    feather: int
    inputs: NetworkInputs
    unguided: list[int]
    shares: list[float]
    candidates: tuple[int, ...]
    lighting: Lighting | None

    @property
    def window_image(self) -> RGB:
        """The window's pixels, uint8 [h, w, 3]."""
        x0, y0, x1, y1 = self.window
        return self.sample.background[y0:y1, x0:x1]

    @property
    def window_keep(self) -> Mask | None:
        """What of the window stays in front, bool [h, w]; None: nothing."""
        x0, y0, x1, y1 = self.window
        return None if self.sample.keep is None else self.sample.keep[y0:y1, x0:x1]


def prepare(
    sample: CompositeSample,
    options: CompositeOptions,
    config: ModelConfig,
    candidates: tuple[int, ...] | None = None,
    lighting: Lighting | None = None,
) -> PreparedSample:
    """Choose the window and make the network's inputs.

    Args:
        sample, options, config: see `composite`.
        candidates: numbers of the pictures to make of these inputs; None: all of the sample's.
        lighting: by which a model with shadows casts them.

    Raises:
        BadSample, ValueError: see `composite`.
    """
    order = back_to_front(sample.order, sample.boxes)
    known_order = None if sample.order in (None, "auto") else order
    references = tuple(map(_without_opaque_alpha, range(len(sample.references)), sample.references))
    height, width = sample.background.shape[:2]
    window = choose_window(sample.boxes, width, height, options.crop, config.window_size)
    boxes = to_window(sample.boxes, window)
    _check_visible(boxes, window, config.image_size)
    window_image = sample.background[window[1] : window[3], window[0] : window[2]]
    inputs = window_inputs(
        window_image,
        boxes,
        references,
        config,
        known_order,
        fit=options.fit,
        lighting=lighting,
        shadow_room=options.shadow_room,
    )
    cells = inputs.masks[:, :: config.downsampling, :: config.downsampling]
    return PreparedSample(
        sample=replace(sample, references=references),
        window=window,
        boxes=boxes,
        order=order,
        known_order=known_order,
        gate_bias=gate_bias(sample.order, sample.boxes),
        feather=feather_width(options.feather, window, boxes, config),
        inputs=inputs,
        unguided=[k for k in range(len(boxes)) if not cells[k].any()],
        shares=object_shares(boxes, references, config, window_image.shape[1], window_image.shape[0], options.fit),
        candidates=sample.candidates if candidates is None else candidates,
        lighting=lighting,
    )


def window_inputs(
    window_image: RGB,
    boxes: Sequence[Box],
    references: Sequence[Bytes],
    config: ModelConfig,
    order: Sequence[int] | None = None,
    *,
    fit: Fit = "contain",
    lighting: Lighting | None = None,
    shadow_room: float = 0.0,
) -> NetworkInputs:
    """What a model of this configuration sees of a window, uint8 [h, w, 3], with these objects."""
    return prepare_network_inputs(
        window_image,
        boxes,
        references,
        size=config.image_size,
        reference_size=config.reference_size,
        hint=config.hint,
        order=order,
        paste_boxes=fit_paste_boxes(boxes, references, config.fill, window_image.shape[1], window_image.shape[0], fit),
        fit=fit,
        shadows=ShadowInputs(lighting, config.fill, shadow_room) if config.shadows else None,
    )


class WindowPaste(NamedTuple):
    """What is pasted into a window at its own size, where it matters.

    Attributes:
        part: of the window, in its pixels: that of the regions and of what is pasted.
        paint: gives what paints each of the L layers of the control image of `window_inputs` over the part, in place;
            its argument `objects` is that of `layer_painters`.
        match: gives the objects with the window's blur and grain.
        alpha: uint8 [h, w], of the part: of all objects pasted; None where the control image shows none.
        network_alphas: uint8 [K, S, S], of each object as the network sees it; None as well.
        guess: the objects back to front as the first of two layers is pasted; None where the order is known.
        shadows: of a model that casts them, else None.
        alphas: gives uint8 [h, w] of the part for each object pasted; None where the control image shows none.
        orders: of the objects, back to front, in the first two layers.
    """

    part: Box
    paint: Callable[..., Painters]
    match: Callable[[], MatchedObjects]
    alpha: Bytes | None
    network_alphas: Bytes | None
    guess: list[int] | None = None
    shadows: PartShadows | None = None
    alphas: Callable[[], Iterator[Bytes]] | None = None
    orders: tuple[Sequence[int], ...] = ()


def window_paste(
    window_image: RGB,
    boxes: Sequence[Box],
    references: Sequence[Bytes],
    config: ModelConfig,
    order: Sequence[int] | None = None,
    *,
    fit: Fit = "contain",
    lighting: Lighting | None = None,
    shadow_room: float = 0.0,
) -> WindowPaste:
    """What is pasted of these objects into a window, uint8 [h, w, 3]; arguments as those of `window_inputs`."""
    height, width = window_image.shape[:2]
    paste_boxes = fit_paste_boxes(boxes, references, config.fill, width, height, fit)
    wider = grow_regions(boxes, shadow_room, width, height)
    # What fills the regions of a collage is made from all that surrounds them.
    part = (0, 0, width, height) if config.hint == "collage" else enclosing_box([*wider, *paste_boxes])
    part_image = window_image[part[1] : part[3], part[0] : part[2]]
    regions, paste_boxes = to_window(boxes, part), to_window(paste_boxes, part)
    cutouts = [None if is_blank(reference) else cut_out(reference) for reference in references]
    paint = partial(
        layer_painters,
        part_image,
        regions,
        [reference if cutout is None else cutout for reference, cutout in zip(references, cutouts, strict=True)],
        hint=config.hint,
        order=order,
        paste_boxes=paste_boxes,
        fit=fit,
    )
    canvas = part_image.shape[1], part_image.shape[0]
    match = partial(MatchedObjects, window_image, *canvas, paste_boxes, cutouts, fit, regions)
    if config.hint == "background":
        return WindowPaste(part, paint, match, None, None)
    letterbox = Letterbox(width, height, config.image_size)
    joint = np.zeros(part_image.shape[:2], np.uint8)
    small = []
    alphas = partial(pasted_alphas, *canvas, paste_boxes, cutouts, fit, regions)
    for alpha in alphas():
        joint = joint_alpha(joint, alpha)
        square = np.zeros((letterbox.side, letterbox.side), np.uint8)
        letterbox.content(square)[part[1] : part[3], part[0] : part[2]] = alpha
        small.append(letterbox.resize(square, antialias=True))
    shadows = None
    if config.shadows:
        shadows = part_shadows(
            regions,
            to_window(wider, part),
            paste_boxes,
            cutouts,
            to_window([(0, 0, width, height)], part)[0],
            size=canvas,
            order=order,
            fit=fit,
            lighting=lighting,
            room=(1 - config.fill) / 2,
        )
    orders = paste_orders(regions, order)
    guess = orders[0] if order is None else None
    return WindowPaste(part, paint, match, joint, np.stack(small), guess, shadows, alphas, orders)


def object_shares(
    boxes: Sequence[Box], references: Sequence[Bytes], config: ModelConfig, width: int, height: int, fit: Fit
) -> list[float]:
    """What part of the box that it was to fill each object fills, in 0..1; none where the model pastes no objects.

    It is below 1 where the object's aspect is not its box's and is kept: their ratio.

    Args:
        boxes: K regions, in the window's pixels.
        references: their pictures, uint8 [h, w, 3] on white or [h, w, 4].
        width, height: of the window.
    """
    if config.hint == "background":
        return []
    shares = []
    paste_boxes = fit_paste_boxes(boxes, references, config.fill, width, height, fit)
    for (x0, y0, x1, y1), reference in zip(paste_boxes, references, strict=True):
        rows, columns = (y1 - y0, x1 - x0) if is_blank(reference) else crop_to_opaque(cut_out(reference)).shape[:2]
        across, down = fitted_size((x0, y0, x1, y1), (columns, rows), fit)
        shares.append(min(across * down / ((x1 - x0) * (y1 - y0)), 1.0))
    return shares


def _without_opaque_alpha(k: int, reference: Bytes) -> Bytes:
    if reference.ndim != 3 or reference.shape[2] != 4 or not reference.size:
        return reference
    try:
        return drop_opaque_alpha(reference)
    except BadSample as error:
        raise BadSample(error.reason, f"reference {k}: {error.detail}") from None


def _check_visible(boxes: Sequence[Box], window: Box, size: int) -> None:
    """Refuse a region that falls between the network's pixels, for the network would not see it."""
    letterbox = Letterbox(window[2] - window[0], window[3] - window[1], size)
    for k, box in enumerate(boxes):
        x0, y0, x1, y1 = letterbox.forward_box(box)
        if x1 <= x0 or y1 <= y0:
            shown = f"the region of object {k} is {box[2] - box[0]}x{box[3] - box[1]} pixels"
            raise BadSample(
                "tiny_region", f"{shown}, less than one in the {size}x{size} that the model sees of {letterbox.side}"
            )
