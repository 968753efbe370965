"""A sample of a shard to the arrays of a training step: references augmented, boxes grown, control image and target.

K: objects, L: layers of the control image, S: model size, R: reference size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from typing_extensions import NotRequired

from pics_cli.core.conditioning.layer_labels import compute_layer_labels
from pics_cli.core.conditioning.network_inputs import REFERENCE_FRAME, prepare_control_image
from pics_cli.core.conditioning.placement import choose_window, to_window
from pics_cli.core.conditioning.shadow_inputs import ShadowInputs, prepare_shadow_maps, square_fade
from pics_cli.core.images.cutouts import WHITE, cut_out
from pics_cli.core.images.geometry import Box, Letterbox, clip_box, order_by_lower_edge, scale_box
from pics_cli.core.images.image_io import RGB, decode_image
from pics_cli.core.images.lighting import Lighting, read_lighting
from pics_cli.core.images.masks import BoxMask
from pics_cli.core.loading.augment import NEUTRAL, Reference, augment_reference, cut_reference, grow_box
from pics_cli.core.loading.augment_geometry import RGBA
from pics_cli.core.model.config import HintKind
from pics_cli.core.model.light_head import light_values
from pics_cli.core.recipes.training_sections import AugmentSettings
from pics_cli.core.runtime.rng import generator
from pics_cli.core.shards.layouts import SampleParts, unpack_sample
from pics_cli.core.shards.samples import decode_alternate_view, decode_clean_background, depth_order
from pics_cli.errors import BadSample

Bytes = npt.NDArray[np.uint8]


class TrainingSample(TypedDict):
    """Arrays of a sample for a training step.

    Attributes:
        control_image: uint8 [S, S, 3 L], see `prepare_control_image`, and the shadow maps of a model that has them.
        target: uint8 [S, S, 3], the picture in the square, black around it.
        boxes: int16 [K, 4], where each object is painted, in the square; none is empty.
        content: int16 [4], the picture's part of the square.
        references: uint8 [K, R, R, 3] on white.
        layer_labels: uint8 [S, S], for hint `layers` only: bit l set where layer l shows what the target shows, see
            `compute_layer_labels`.
        fade: float32 [S, S], for a model with shadows only, as in `NetworkInputs`.
        light: float32 [6], likewise: `light_values` of the picture's true light, then 1; zeros where it is not known.
    """

    control_image: Bytes
    target: Bytes
    boxes: npt.NDArray[np.int16]
    content: npt.NDArray[np.int16]
    references: Bytes
    layer_labels: NotRequired[Bytes]
    fade: NotRequired[npt.NDArray[np.float32]]
    light: NotRequired[npt.NDArray[np.float32]]


def prepare_training_sample(
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
    object_scale: float = 1.0,
    shadows: bool = False,
    window_size: int | None = None,
    swap_references: bool = False,
) -> TrainingSample:
    """Decode the members of a sample and make the arrays of a training step.

    References are cut from the picture by their masks, or taken from the object's alternative view where the sample
    has one and the draw says so; the stored patches are not used. An alternative view also shows what of the object is
    hidden in the picture: its box is then that of the mask with hidden parts, where there is one.

    Args:
        members: by extension, of either layout.
        set_name: with the key and `rng_keys`, what the draws are a function of.
        key: of the sample.
        augment: how references and boxes are varied.
        rng_keys: epoch and repetition.
        seed: of the run.
        size: S.
        reference_size: R.
        hint: kind of control image.
        object_scale: sides of a pasted object over those of its region.
        shadows: whether the model has shadow maps; they are cast by the sample's own light, jittered, or by none.
        window_size: model size by which the window is chosen, see `ModelConfig`; None: S.
        swap_references: each object gets the reference of the one before it, the first that of the last.

    Raises:
        BadSample: a member is missing or damaged; a box that holds no pixel of the square.
    """
    parts = unpack_sample(members)
    rgb = decode_image(parts.image).rgb
    height, width = rgb.shape[:2]
    detail = 0 if hint == "background" else size
    regions, references = list[Box](), list[Reference]()
    for k in range(len(parts.masks)):
        rng = generator(seed, "augment", set_name, key, *rng_keys, k)
        reference, shown = draw_reference(parts, rgb, k, augment, rng, reference_size, detail)
        references.append(reference)
        regions.append(grow_box(shown.box, augment, rng))
    if swap_references:
        references = references[-1:] + references[:-1]
    background = _background(parts, rgb, hint)
    absent = generator(seed, "absent", set_name, key, *rng_keys).random() < augment.absent
    if absent:
        rgb = background
        white = np.full((reference_size, reference_size, 3), WHITE, np.uint8)
        references = [Reference(white, white)] * len(references)

    boxes = [clip_box(box, width, height) for box in regions]
    paste_boxes = [clip_box(scale_box(box, object_scale), width, height) for box in regions]
    window = x0, y0, x1, y1 = choose_window(boxes, width, height, augment.crop, window_size or size)
    rgb, background = rgb[y0:y1, x0:x1], background[y0:y1, x0:x1]
    boxes, paste_boxes, width, height = to_window(boxes, window), to_window(paste_boxes, window), x1 - x0, y1 - y0
    letterbox = Letterbox(width, height, size)
    square_boxes = np.array([letterbox.forward_box(box) for box in boxes], np.int16)
    _check_region_sizes(boxes, square_boxes, letterbox)

    order = None
    if hint != "layers":
        front_to_back = depth_order(parts.metadata, len(boxes))
        order = order_by_lower_edge(boxes) if front_to_back is None else front_to_back[::-1]
    control_image = partial(
        prepare_control_image, boxes=boxes, size=size, hint=hint, order=order, paste_boxes=paste_boxes
    )
    # The target is resized as the control image of this kind is.
    to_square = partial(letterbox.forward, antialias=hint != "background")
    cutouts = [reference.rgba for reference in references]
    sample: TrainingSample = {
        "control_image": control_image(background, references=cutouts),
        "target": to_square(rgb),
        "boxes": square_boxes,
        "content": np.array(letterbox.forward_box((0, 0, width, height)), np.int16),
        "references": np.stack([reference.patch for reference in references]),
    }
    if hint == "layers":
        visible = [np.zeros((height, width), np.bool_) if absent else mask.window(window) for mask in parts.masks]
        sample["layer_labels"] = compute_layer_labels(
            cutouts, visible, lambda canvas, pictures: control_image(canvas, references=pictures), to_square
        )
    if shadows:
        lighting = read_lighting(parts.metadata)
        rng = generator(seed, "light", set_name, key, *rng_keys)
        inputs = draw_shadow_inputs(lighting, object_scale, augment, rng)
        maps = prepare_shadow_maps(letterbox, boxes, cutouts, inputs, order=order, paste_boxes=paste_boxes)
        sample["control_image"] = np.concatenate([sample["control_image"], maps], axis=2)
        sample["fade"] = square_fade(boxes, letterbox, (1 - object_scale) / 2)
        values = [0.0] * 6 if lighting is None else [*light_values(lighting), 1.0]
        sample["light"] = np.array(values, np.float32)
    return sample


def draw_shadow_inputs(
    lighting: Lighting | None, object_scale: float, augment: AugmentSettings, rng: np.random.Generator
) -> ShadowInputs:
    """The light that shadows are cast by in training: the true one, jittered as an estimate is, or none."""
    dropped, room, *jitter = rng.random(2).tolist() + rng.uniform(-1, 1, 5).tolist()
    room = max(2 * room - 1, 0) * augment.shadow_room
    if lighting is None or dropped < augment.light_dropout:
        return ShadowInputs(None, object_scale, room)
    degrees = augment.light_jitter
    return ShadowInputs(
        Lighting(
            azimuth=(lighting.azimuth + degrees * jitter[0] + 180) % 360 - 180,
            elevation=min(max(lighting.elevation + degrees / 2 * jitter[1], 3), 90),
            radius=min(lighting.radius * 2 ** (degrees / 20 * jitter[2]), 90),
            strength=min(max(lighting.strength + degrees / 100 * jitter[3], 0), 1),
            pitch=min(max(lighting.pitch + degrees / 2 * jitter[4], 0), 90),
        ),
        object_scale,
        room,
    )


def draw_reference(
    parts: SampleParts,
    rgb: RGB,
    k: int,
    augment: AugmentSettings,
    rng: np.random.Generator,
    reference_size: int,
    detail: int = 0,
) -> tuple[Reference, BoxMask]:
    """The augmented reference of object k: cut from the picture, or its alternative view where the sample has one.

    Returns:
        The reference, and the mask of what it shows of the object.

    Raises:
        BadSample: the alternative view is damaged, or nothing of the object would be seen.
    """
    rgba = alternate_view(parts, k) if rng.random() < augment.alternate else None
    shown = parts.masks[k]
    if rgba is None:
        rgba = cut_reference(rgb, shown)
    else:
        shown = parts.amodal_masks.get(k, shown)
    return augment_reference(rgba, augment, rng, reference_size, detail=detail), shown


def without_augmentation(augment: AugmentSettings) -> AugmentSettings:
    """The settings for validation; objects come from their alternative view if they mostly do in training."""
    growth = augment.box_growth[0] if augment.box_growth[0] == augment.box_growth[1] else 1.0
    return replace(
        augment,
        flip=0.0,
        rotation=0.0,
        perspective=0.0,
        scale=(REFERENCE_FRAME, REFERENCE_FRAME),
        brightness=0.0,
        contrast=0.0,
        alternate=float(augment.alternate >= 0.5),
        absent=0.0,
        exposure=0.0,
        temperature=(NEUTRAL, NEUTRAL),
        dirt=0.0,
        light_jitter=0.0,
        light_dropout=0.0,
        shadow_room=0.0,
        box_growth=(growth, growth),
    )


def alternate_view(parts: SampleParts, k: int) -> RGBA | None:
    """The object seen differently, uint8 [h, w, 4], cropped to it; None where the sample has no such view.

    Raises:
        BadSample: it is damaged, or shows nothing.
    """
    rgba = decode_alternate_view(parts, k)
    if rgba is not None and not rgba[..., 3].any():
        raise BadSample("bad_reference", f"alt{k}.png is wholly transparent")
    return None if rgba is None else cut_out(rgba)


def _background(parts: SampleParts, rgb: RGB, hint: HintKind) -> RGB:
    """The background, uint8 [H, W, 3]: the clean one where the sample has it, as a user's background is.

    Else the picture itself, which also shows what of the objects lies outside their boxes, such as shadows.

    Raises:
        BadSample: `no_clean` where the control image would show the objects; `bad_clean`.
    """
    if "clean.jpg" not in parts.extra_members and hint in ("overlay", "layers"):
        why = f"hint {hint} needs clean.jpg, the background without the objects: the picture shows the answer"
        raise BadSample("no_clean", why)
    clean = decode_clean_background(parts, (rgb.shape[1], rgb.shape[0]))
    return rgb if clean is None else clean


def _check_region_sizes(boxes: Sequence[Box], square_boxes: npt.NDArray[np.int16], letterbox: Letterbox) -> None:
    """Refuse regions without a pixel in the square, as inference does: nothing could be learnt from them.

    Raises:
        BadSample: `tiny_region`.
    """
    for k in np.flatnonzero((square_boxes[:, 2:] <= square_boxes[:, :2]).any(axis=1)).tolist():
        x0, y0, x1, y1 = boxes[k]
        square = f"{letterbox.size}x{letterbox.size} that the model sees of {letterbox.side}"
        region = f"the region of object {k} is {x1 - x0}x{y1 - y0} pixels"
        raise BadSample("tiny_region", f"{region}, less than one in the {square}")
