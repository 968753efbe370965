"""A planned sample → everything that the network and the way back from it need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pics_cli.core.conditioning.network_inputs import NetworkInputs, layer_painters, prepare_network_inputs
from pics_cli.core.conditioning.placement import choose_window, fit_paste_boxes, to_window
from pics_cli.core.images.geometry import Box, Letterbox
from pics_cli.core.images.image_io import RGB
from pics_cli.core.inference.inputs import Inputs, decode, read_parts
from pics_cli.core.inference.job import Failure
from pics_cli.core.inference.plan import Task
from pics_cli.core.inference.settings import Settings, back_to_front, gate_bias, seam
from pics_cli.core.model.config import ModelConfig
from pics_cli.errors import BadSample


class Prepared(NamedTuple):
    """A sample, ready for the network.

    Attributes:
        window: what the network sees of the background.
        boxes: in the window's pixels.
        order: of the objects, back to front.
        known: the same where the user gave it, else None.
        bias: added to each object's logit in the gate; None: nothing is.
        feather: of the seam, in pixels of the background.
        network: the inputs of all objects at once.
        unguided: objects whose region falls between the latent's cells: their references reach no token.
    """

    task: Task
    inputs: Inputs
    window: Box
    boxes: list[Box]
    order: list[int]
    known: list[int] | None
    bias: list[float] | None
    feather: int
    network: NetworkInputs
    unguided: list[int]

    @property
    def seen(self) -> RGB:
        """The window's pixels, uint8 [h, w, 3]."""
        x0, y0, x1, y1 = self.window
        return self.inputs.background[y0:y1, x0:x1]


def prepare(task: Task, settings: Settings, config: ModelConfig) -> Prepared | Failure:
    """Read, decode, choose the window and compose; what is wrong with the sample is its failure."""
    try:
        contents = read_parts(task.files)
        inputs = decode(task.files, contents)
        for role, data in contents.items():
            if hashlib.sha256(data).hexdigest() != task.record["inputs"][role]:
                raise BadSample("changed_input", f"{task.files.parts()[role]}: changed since this run began")
        order = back_to_front(settings.order, inputs.boxes)
        height, width = inputs.background.shape[:2]
        part = choose_window(inputs.boxes, width, height, settings.crop, config.window_size)
        boxes = to_window(inputs.boxes, part)
        _refuse_vanished(boxes, part, config.image_size)
        known = None if settings.order in (None, "auto") else order
        network = inputs_of(
            inputs.background[part[1] : part[3], part[0] : part[2]], boxes, inputs.references, config, known
        )
    except BadSample as error:
        return Failure(task.files.id, error.reason, error.detail)
    bias = gate_bias(settings.order, inputs.boxes)
    feather = seam(settings.feather, part, boxes, config)
    cells = network.masks[:, :: config.downsampling, :: config.downsampling]
    unguided = [k for k in range(len(boxes)) if not cells[k].any()]
    return Prepared(task, inputs, part, boxes, order, known, bias, feather, network, unguided)


def inputs_of(
    seen: RGB, boxes: Sequence[Box], references: Sequence[RGB], config: ModelConfig, order: Sequence[int] | None = None
) -> NetworkInputs:
    """What a model of this configuration sees of a window with these objects."""
    return prepare_network_inputs(
        seen,
        boxes,
        references,
        size=config.image_size,
        reference_size=config.reference_size,
        hint=config.hint,
        order=order,
        paste_boxes=fit_paste_boxes(boxes, references, config.fill, seen.shape[1], seen.shape[0]),
    )


def painters_of(
    seen: RGB, boxes: Sequence[Box], references: Sequence[RGB], config: ModelConfig, order: Sequence[int] | None = None
) -> list[Callable[[RGB], None]]:
    """What makes the pictures of the hint of `inputs_of` at the window's own size."""
    paste_boxes = fit_paste_boxes(boxes, references, config.fill, seen.shape[1], seen.shape[0])
    return layer_painters(seen, boxes, references, hint=config.hint, order=order, paste_boxes=paste_boxes)


def _refuse_vanished(boxes: Sequence[Box], part: Box, size: int) -> None:
    """A region that falls between the network's pixels would be painted with what it knows nothing of."""
    letterbox = Letterbox(part[2] - part[0], part[3] - part[1], size)
    for k, box in enumerate(boxes):
        x0, y0, x1, y1 = letterbox.forward_box(box)
        if x1 <= x0 or y1 <= y0:
            shown = f"the region of object {k} is {box[2] - box[0]}x{box[3] - box[1]} pixels"
            raise BadSample(
                "tiny_region", f"{shown}, less than one in the {size}x{size} that the model sees of {letterbox.side}"
            )
