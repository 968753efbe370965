"""The inputs of `composite`: samples as arrays, options, and the order of the objects. K: objects of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pics_cli.core.conditioning.placement import CropKind
from pics_cli.core.images.cutouts import Fit
from pics_cli.core.images.geometry import Box, order_by_lower_edge
from pics_cli.core.images.image_io import RGB
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.schedulers import SCHEDULERS
from pics_cli.errors import BadSample, PicsError

Bytes = npt.NDArray[np.uint8]
Mode = Literal["parallel", "sequential"]
Order = Literal["auto"] | tuple[int, ...]

# Added to an object's logit in the gate (s_k / τ) for each object behind it: of two that the network finds equal the
# nearer then gets e² : 1, 88 % of the weight; one that the network is sure of still gets more.
ORDER_BIAS = 2.0


@dataclass(frozen=True, eq=False)
class CompositeSample:
    """A background and K objects to be composited into it.

    Attributes:
        name: of the sample; its noise is a function of the seed, this name and the candidate's number.
        background: uint8 RGB [H, W, 3].
        boxes: K regions of the background in which pixels may change, half-open, in pixels.
        references: K pictures of the objects, uint8 [h, w, 3] on white, or [h, w, 4] with alpha.
        order: object numbers from back to front; `auto`: by the lower edges of the boxes. Where regions overlap, the
            nearer object then weighs more. None: by the lower edges as well, but as a guess that weighs nothing.
        candidates: numbers of the pictures to make, each from noise of its own.
    """

    name: str
    background: RGB
    boxes: tuple[Box, ...]
    references: tuple[Bytes, ...]
    order: Order | None = None
    candidates: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class CompositeOptions:
    """What decides a composite's pixels besides the sample and the model.

    Attributes:
        seed: of the noise.
        steps, guidance, scheduler: of the denoising; None: the model's own.
        crop: the part of the background that the network sees; see `placement.window`.
        feather: width of the blend at the border of the boxes, in pixels; None: see `paste.feather_width`.
        mode: `parallel`: all objects in one pass; `sequential`: one after the other, back to front.
        fit: how an object fits a region of another aspect; see `paste_object`. Only models that paste heed it.
    """

    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None
    crop: CropKind = "auto"
    feather: int | None = None
    mode: Mode = "parallel"
    fit: Fit = "contain"

    def resolve(self, config: ModelConfig) -> CompositeOptions:
        """The same with steps, guidance and scheduler filled in from the model's configuration.

        Raises:
            PicsError: an unknown scheduler, crop, mode or fit.
        """
        scheduler = self.scheduler or config.scheduler
        for name, value, choices in (
            ("scheduler", scheduler, tuple(SCHEDULERS)),
            ("crop", self.crop, get_args(CropKind)),
            ("mode", self.mode, get_args(Mode)),
            ("fit", self.fit, get_args(Fit)),
        ):
            if value not in choices:
                raise PicsError(f"{name}: got {value}, expected one of {', '.join(choices)}")
        guidance = config.guidance if self.guidance is None else self.guidance
        return replace(self, steps=self.steps or config.steps, guidance=guidance, scheduler=scheduler)


def parse_order(text: str) -> Order:
    """The value of `--order`: `auto`, or object numbers from back to front.

    Raises:
        PicsError: anything else, or numbers that do not name each object once.
    """
    if text == "auto":
        return "auto"
    try:
        order = tuple(int(word) for word in text.split(","))
    except ValueError:
        order = ()
    if sorted(order) != list(range(len(order))) or not order:
        raise PicsError(
            f"--order {text}: expected auto, or every object once by its place, back to front, such as 1,0",
            "objects count from 0, in the order of their file numbers or --object flags",
        )
    return order


def back_to_front(order: Order | None, boxes: Sequence[Box]) -> list[int]:
    """Indices of the objects from back to front; where none is given, the box that reaches lower is nearer.

    Raises:
        BadSample: `order` where the list is for another number of objects.
    """
    if order is None or order == "auto":
        return order_by_lower_edge(boxes)
    if len(order) != len(boxes):
        raise BadSample("order", f"--order lists {len(order)} objects, the sample has {len(boxes)}")
    return list(order)


def gate_bias(order: Order | None, boxes: Sequence[Box]) -> list[float] | None:
    """What is added to each object's logit in the interaction gate, K numbers; None where no order was asked for."""
    if order is None:
        return None
    ranks = back_to_front(order, boxes)
    return [ORDER_BIAS * ranks.index(k) for k in range(len(boxes))]


def drop_opaque_alpha(rgba: Bytes) -> Bytes:
    """A reference uint8 [h, w, 4] as it is, or without its alpha, [h, w, 3], where no pixel is transparent.

    Raises:
        BadSample: `empty_reference` where every pixel is transparent.
    """
    low, high = int(rgba[..., 3].min()), int(rgba[..., 3].max())
    if not high:
        raise BadSample("empty_reference", "every pixel is transparent")
    return rgba if low < 255 else rgba[..., :3]
