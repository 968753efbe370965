"""The inputs of `composite`: samples as arrays, options, and the order of the objects. K: objects of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pics_cli.core.conditioning.placement import CropKind
from pics_cli.core.images.cutouts import Fit
from pics_cli.core.images.geometry import Box, order_by_lower_edge
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.lighting import Lighting
from pics_cli.core.images.masks import Mask
from pics_cli.core.images.stored_image import StoredImage
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.schedulers import SCHEDULERS
from pics_cli.core.runtime.rng import generator
from pics_cli.errors import BadSample, PicsError

Bytes = npt.NDArray[np.uint8]
Mode = Literal["parallel", "sequential"]
MatchKind = Literal["auto", "none"]
Order = Literal["auto"] | tuple[int, ...]
Light = Literal["auto", "none"] | tuple[float, float, float]
# Height and softness of a lamp of which only the azimuth is given, in degrees; the strength of one that is given.
DEFAULT_ELEVATION, DEFAULT_RADIUS, DEFAULT_STRENGTH = 45.0, 5.0, 0.7

GOLDEN_ANGLE = 137.507764
# Added to an object's logit in the gate (s_k / τ) for each object behind it: of two that the network finds equal the
# nearer then gets e² : 1, 88 % of the weight; one that the network is sure of still gets more.
ORDER_BIAS = 2.0

# Settings by name: values of `CompositeOptions`, and how many objects are taken of a sample folder.
PRESETS: dict[str, dict[str, Any]] = {
    # Those of the research project's test script.
    "published": {
        "obj_thr": 2, "steps": 50, "guidance": 5.0, "scheduler": "ddim", "crop": "full", "feather": 0, "match": "none",
    }
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class CompositeSample:
    """A background and K objects to be composited into it.

    Attributes:
        name: of the sample; its noise is a function of the seed, this name and the candidate's number.
        background: uint8 RGB [H, W, 3], sRGB.
        boxes: K regions of the background in which pixels may change, half-open, in pixels.
        references: K pictures of the objects, uint8 [h, w, 3] on white, or [h, w, 4] with alpha.
        order: object numbers from back to front; `auto`: by the lower edges of the boxes. Where regions overlap, the
            nearer object then weighs more. None: by the lower edges as well, but as a guess that weighs nothing.
        candidates: numbers of the pictures to make, each from noise of its own.
        stored: the background as its file stores it, of which `background` is `to_srgb`; None: it is all there is.
        notes: what of the sample's files is not used, and what does not look right in its masks, one line each.
        keep: bool [H, W], things of the background that stay in front of the objects: no pixel changes there. None:
            there are none.
    """

    name: str
    background: RGB
    boxes: tuple[Box, ...]
    references: tuple[Bytes, ...]
    order: Order | None = None
    candidates: tuple[int, ...] = (0,)
    stored: StoredImage | None = None
    notes: tuple[str, ...] = ()
    keep: Mask | None = None


@dataclass(frozen=True)
class CompositeOptions:
    """What decides a composite's pixels besides the sample and the model.

    Attributes:
        seed: of the noise.
        steps, guidance, scheduler: of the denoising; None: the model's own.
        crop: the part of the background that the network sees; see `placement.window`.
        feather: width of the blend at the border of the boxes, in pixels; None: see `paste.feather_width`.
        light: of models with shadows: `auto`: the lamp that the model finds in the picture, where it is sure of one;
            `none`: contact shadows only; or azimuth, elevation and angular radius in degrees, see `Lighting`.
        shadow_room: of such models: by which share of their sides regions are wider for shadows alone.
        mode: `parallel`: all objects in one pass; `sequential`: one after the other, back to front.
        fit: how an object fits a region of another aspect; see `paste_object`. Only models that paste heed it.
        match: `auto`: pasted objects get the blur and grain of the background around them; `none`: they stay as they
            are. Of models that blend pasted pictures alone.
    """

    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None
    crop: CropKind = "auto"
    feather: int | None = None
    light: Light = "auto"
    shadow_room: float = 0.0
    mode: Mode = "parallel"
    fit: Fit = "contain"
    match: MatchKind = "auto"

    def resolve(self, config: ModelConfig) -> CompositeOptions:
        """The same with steps, guidance and scheduler filled in from the model's configuration.

        Raises:
            PicsError: an unknown scheduler, crop, mode, fit or match; a light that the model does not cast shadows by.
        """
        if not config.shadows and (self.light != "auto" or self.shadow_room):
            option = "shadow_room" if self.shadow_room else "light"
            raise PicsError(
                f"{option}: this model casts no shadows of a given light", f"leave out --{option.replace('_', '-')}"
            )
        scheduler = self.scheduler or config.scheduler
        for name, value, choices in (
            ("scheduler", scheduler, tuple(SCHEDULERS)),
            ("crop", self.crop, get_args(CropKind)),
            ("mode", self.mode, get_args(Mode)),
            ("fit", self.fit, get_args(Fit)),
            ("match", self.match, get_args(MatchKind)),
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


def parse_light(text: str) -> Light:
    """The value of `--light`: `auto`, `none`, or AZIMUTH[,ELEVATION[,SOFTNESS]] in degrees.

    Raises:
        PicsError: anything else, or a number out of range.
    """
    if text in ("auto", "none"):
        return text  # type: ignore[return-value]
    try:
        numbers = [_number(word) for word in text.split(",")]
        if not 1 <= len(numbers) <= 3:
            raise ValueError(f"{len(numbers)} numbers")
        azimuth, elevation, radius = (*numbers, *(DEFAULT_ELEVATION, DEFAULT_RADIUS)[len(numbers) - 1 :])
        Lighting(azimuth, elevation, radius, DEFAULT_STRENGTH, 0)
    except ValueError as error:
        raise PicsError(
            f"--light {text}: {error}",
            "expected auto, none or AZIMUTH[,ELEVATION[,SOFTNESS]] in degrees: 0 from behind the camera, 90 from the "
            "right, -90 from the left, 180 from behind the scene; elevation above the ground, such as -60,40,5",
        ) from None
    return azimuth, elevation, radius


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{word!r} is no number") from None


def candidate_lighting(light: Light, estimated: Lighting, candidate: int, seed: int, name: str) -> Lighting:
    """The lighting of a candidate: the first has the one asked for, each further one a lamp from another side.

    Sides follow each other by the golden angle, from one that seed and name decide, so that any few of them are apart.

    Args:
        light: as in `CompositeOptions`.
        estimated: what the model makes of the picture.
        candidate: its number.
        seed, name: of the sample.
    """
    if light == "none":
        return replace(estimated, strength=0.0)
    if light != "auto":
        azimuth, elevation, radius = light
        estimated = Lighting(azimuth, elevation, radius, DEFAULT_STRENGTH, estimated.pitch)
    if candidate == 0:
        return estimated
    if not estimated.strength:
        estimated = replace(estimated, elevation=DEFAULT_ELEVATION, radius=DEFAULT_RADIUS, strength=DEFAULT_STRENGTH)
    first = generator(seed, "lamp", name).uniform(60, 300)
    turned = estimated.azimuth + first + (candidate - 1) * GOLDEN_ANGLE
    return replace(estimated, azimuth=(turned + 180) % 360 - 180)


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
