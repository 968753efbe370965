"""Blur and grain of pasted objects matched to the background around them; colours and light are the network's.

A cut-out that is sharper than a blurred photograph, or clean in a grainy one, looks pasted. Both are measured in the
window and in each object at its pasted size; an object is blurred or given grain where they differ clearly, never
sharpened or cleaned.

h, w: sides of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.conditioning.alphas import pasted_alphas
from pics_cli.core.images.cutouts import Fit, paste_object
from pics_cli.core.images.geometry import Box
from pics_cli.core.images.grain import Grain, draw_grain, measure_grain, positive_covariance
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.sharpness import measure_blur
from pics_cli.core.runtime.rng import generator

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Grain that can be seen, in grey levels, and how much more of it than an object has is clearly more.
_MIN_GRAIN, _CLEARLY_GRAINIER = 1.0, 1.5
# Deviation of a background's blur that can be seen, how much more than an object's is clearly more, and the most that
# an object is blurred by, in pixels.
_MIN_BLUR, _CLEARLY_BLURRIER, _MAX_BLUR = 1.2, 1.5, 4.0
# Share of a window's edges that are sharper than the one it is measured by, for shadows and folds are soft in any
# picture, and of an object's.
_WINDOW_SHARE, _OBJECT_SHARE = 0.2, 0.5
# Share of a window that must hold edges; a single one across it holds half at most.
_WINDOW_SPREAD = 0.55
# Sides of the tiles that grain is measured in, in pixels.
_WINDOW_TILE, _OBJECT_TILE = 16, 8
# Windows larger than this are measured in nine squares of a third of this side.
_SIDE = 768


class PastedObject(NamedTuple):
    """An object at its pasted size.

    Attributes:
        box: where it lies on its canvas.
        colour: float32 [h, w, 3], not premultiplied; means something where alpha is above 0.
        alpha: float32 [h, w] in 0..1.
    """

    box: Box
    colour: Floats
    alpha: Floats

    @classmethod
    def of(
        cls, width: int, height: int, paste_box: Box, cutout: Bytes, fit: Fit = "contain", region: Box | None = None
    ) -> PastedObject | None:
        """A cutout, uint8 [_, _, 4], as `paste_object` pastes it into a canvas; None where nothing of it arrives."""
        (alpha,) = pasted_alphas(width, height, [paste_box], [cutout], fit, None if region is None else [region])
        canvas = np.zeros((height, width, 3), np.uint8)
        paste_object(canvas, paste_box, cutout, fit, region)
        x, y, w, h = map(int, cv2.boundingRect(alpha))
        if not w:
            return None
        part = np.s_[y : y + h, x : x + w]
        opacity = alpha[part].astype(np.float32) / np.float32(255)
        colour = canvas[part] / np.maximum(opacity, 1 / 255)[..., None]
        return cls((x, y, x + w, y + h), colour.astype(np.float32), opacity.astype(np.float32))

    def paint(self, canvas: RGB) -> None:
        """Paste it over a canvas, in place."""
        x0, y0, x1, y1 = self.box
        under, alpha = canvas[y0:y1, x0:x1], self.alpha[..., None]
        under[:] = np.rint(np.clip(under * (1 - alpha) + self.colour * alpha, 0, 255))


class Match(NamedTuple):
    """What an object is given: a blur, as deviation of a Gaussian in pixels (0: none), and grain (None: none)."""

    blur: float = 0.0
    grain: Grain | None = None

    def __bool__(self) -> bool:
        return bool(self.blur) or self.grain is not None


class Surroundings(NamedTuple):
    """What is measured of a window; None where it shows too little to be measured."""

    blur: float | None
    grain: Grain | None

    @property
    def visible(self) -> bool:
        """Whether an object could lack any of it."""
        grainy = self.grain is not None and self.grain.deviation >= _MIN_GRAIN
        return grainy or (self.blur is not None and self.blur >= _MIN_BLUR)


def measure_surroundings(window: RGB) -> Surroundings:
    """Measure blur and grain of a window, uint8 [h, w, 3]."""
    crops = [(crop, None) for crop in _crops(window)]
    return Surroundings(measure_blur(crops, _WINDOW_SHARE, _WINDOW_SPREAD), measure_grain(crops, _WINDOW_TILE))


def find_match(pasted: PastedObject, surroundings: Surroundings) -> Match:
    """What an object lacks of its surroundings' blur and grain; nothing within the tolerance of measuring."""
    inside = cv2.erode(np.where(pasted.alpha > 0.98, 255, 0).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    blur = 0.0
    if surroundings.blur is not None and surroundings.blur >= _MIN_BLUR:
        own = measure_blur([(pasted.colour, inside)], _OBJECT_SHARE)
        if own is not None and surroundings.blur >= _CLEARLY_BLURRIER * own:
            blur = min(float(np.sqrt(surroundings.blur**2 - own**2)), _MAX_BLUR)
    grain = surroundings.grain
    if grain is None or grain.deviation < _MIN_GRAIN:
        return Match(blur)
    own_grain = measure_grain([(_blurred(pasted, blur).colour, inside)], _OBJECT_TILE, textured=True)
    if own_grain is None or grain.deviation < _CLEARLY_GRAINIER * own_grain.deviation:
        return Match(blur)
    return Match(blur, Grain(positive_covariance(grain.covariance - own_grain.covariance), grain.blur))


class MatchedObjects:
    """The objects of a window that lack something of its blur or grain, ready to be pasted with it.

    Args:
        window_image: uint8 [_, _, 3], what the network saw of the background.
        width, height: of the canvas that is pasted into.
        paste_boxes: K boxes inside the canvas.
        cutouts: uint8 [_, _, 4], K of them; None where nothing is pasted.
        fit, regions: as those of `pasted_alphas`.
    """

    def __init__(
        self,
        window_image: RGB,
        width: int,
        height: int,
        paste_boxes: Sequence[Box],
        cutouts: Sequence[Bytes | None],
        fit: Fit = "contain",
        regions: Sequence[Box] | None = None,
    ) -> None:
        self._found: list[tuple[PastedObject, Match] | None] = []
        surroundings = measure_surroundings(window_image)
        for box, cutout, region in zip(paste_boxes, cutouts, regions or paste_boxes, strict=True):
            pasted = None
            if cutout is not None and surroundings.visible:
                pasted = PastedObject.of(width, height, box, cutout, fit, region)
            match = Match() if pasted is None else find_match(pasted, surroundings)
            self._found.append((pasted, match) if pasted is not None and match else None)

    @property
    def matches(self) -> list[Match]:
        """What each object is given."""
        return [Match() if found is None else found[1] for found in self._found]

    def painters(self, seed: int, *keys: str | int) -> list[Callable[[RGB], None] | None]:
        """What pastes each object; None: as it is. The grain is a function of the seed, the keys and its number."""
        return [
            None if found is None else apply_match(*found, generator(seed, "grain", *keys, k)).paint
            for k, found in enumerate(self._found)
        ]


def apply_match(pasted: PastedObject, match: Match, rng: np.random.Generator) -> PastedObject:
    """An object with the blur and the grain that it lacks; its alpha grows nowhere.

    Args:
        pasted: the object.
        match: what it is given.
        rng: of the grain.
    """
    blurred = _blurred(pasted, match.blur)
    if match.grain is None:
        return blurred
    height, width = pasted.alpha.shape[:2]
    return blurred._replace(colour=np.add(blurred.colour, draw_grain(match.grain, height, width, rng)))


def _blurred(pasted: PastedObject, blur: float) -> PastedObject:
    """Colours blurred inside the alpha, whose rim grows softer inwards."""
    if not blur:
        return pasted
    alpha = cv2.GaussianBlur(pasted.alpha, (0, 0), blur, borderType=cv2.BORDER_CONSTANT).astype(np.float32)
    colour = cv2.GaussianBlur(
        pasted.colour * pasted.alpha[..., None], (0, 0), blur, borderType=cv2.BORDER_CONSTANT
    ).astype(np.float32)
    colour /= np.maximum(alpha, 1e-3)[..., None]
    return pasted._replace(colour=colour, alpha=np.minimum(pasted.alpha, alpha))


def _crops(window: RGB) -> Iterator[RGB]:
    height, width = window.shape[:2]
    if max(height, width) <= _SIDE:
        yield window
        return
    rows, columns = min(_SIDE // 3, height), min(_SIDE // 3, width)
    for y in np.linspace(0, height - rows, 3).astype(int):
        for x in np.linspace(0, width - columns, 3).astype(int):
            yield window[y : y + rows, x : x + columns]
