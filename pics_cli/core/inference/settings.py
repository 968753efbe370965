"""What decides a composite's pixels besides its inputs, the model and the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pics_cli.core.conditioning.placement import CropKind
from pics_cli.core.images.geometry import Box, order_by_lower_edge
from pics_cli.core.model.config import ModelConfig
from pics_cli.errors import BadSample, PicsError

# Added to the gate's logits (s_k / τ) for each place towards the viewer: of two objects that the network thinks equal,
# the nearer then gets e² : 1, 88 % of the weight; one that it is sure of keeps the upper hand.
ORDER_BIAS = 2.0

Order = Literal["auto"] | tuple[int, ...]


@dataclass(frozen=True)
class Settings:
    """Resolved: what the user left open is filled in from the model.

    Attributes:
        feather: pixels of the seam, None: as wide as one cell of the latent.
        order: back to front, None: not asked for.
        dtype: the network computes in.
    """

    steps: int
    guidance: float
    scheduler: str
    crop: CropKind
    feather: int | None
    mode: str
    order: Order | None
    dtype: str


def parse_order(text: str) -> Order:
    """`auto` or object numbers, back to front.

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
    """What is added to each object's logit in the gate, K numbers; None where no order was asked for."""
    if order is None:
        return None
    ranks = back_to_front(order, boxes)
    return [ORDER_BIAS * ranks.index(k) for k in range(len(boxes))]


def seam(feather: int | None, window: Box, boxes: Sequence[Box], config: ModelConfig) -> int:
    """Width of the seam in pixels of the picture: as asked for, or one cell of the latent.

    At least the room that the model leaves around objects for their shadows, which then fade out in it.
    """
    if feather is not None:
        return feather
    side = max(window[2] - window[0], window[3] - window[1])
    room = (1 - config.fill) / 2 * min(min(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes)
    return max(1, round(config.downsampling * side / config.image_size), round(room))
