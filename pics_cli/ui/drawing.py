"""What was drawn and chosen in a page, and its objects, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from pics_cli.core.images.cutouts import Fit
from pics_cli.core.inference.cutout import Cutout
from pics_cli.errors import PicsError

_LIMITS: dict[str, tuple[float, float]] = {"num": (1, 8), "seed": (0, 2**53), "steps": (1, 1000), "guidance": (1, 100)}


class Drawing(msgspec.Struct, forbid_unknown_fields=True):
    """What was drawn and chosen, as the page sends it.

    Attributes:
        boxes: x, y, width, height in pixels of the background, by object number; an object without has none yet.
        order: object numbers from back to front; `auto` or None as `--order`.
        num, seed, steps, guidance, cutout, fit, explain, layers: as these options of `pics infer`.
    """

    boxes: dict[int, tuple[int, int, int, int]] = {}
    order: list[int] | Literal["auto"] | None = None
    num: int = 1
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    cutout: Cutout = "auto"
    fit: Fit = "contain"
    explain: bool = False
    layers: bool = False

    def check(self) -> None:
        """Raise PicsError for a number that is out of range."""
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise PicsError(f"--{name}: {value} is not in the range {low:g}<=x<={high:g}")


@dataclass
class ObjectPicture:
    """An object to be put in; its files are `object_NUMBER.…` of the session's folder.

    Attributes:
        number: of the object in its session; not used again when it is taken away.
        label: what the user calls it: the name of the uploaded file, never used as one.
        file: of the uploaded picture.
        size: its (width, height).
        method, note, error: how it was cut out, and what to know about it; see `CutReference`.
        bounds: box of what is not transparent.
        corrected: whether there are strokes of the brush on it.
        version: counts changes of the cut-out.
    """

    number: int
    label: str
    file: str
    size: tuple[int, int]
    method: str = ""
    note: str = ""
    error: str = ""
    bounds: tuple[int, int, int, int] = (0, 0, 0, 0)
    corrected: bool = False
    version: int = 0

    def name(self, what: str) -> str:
        """Name of a file: `strokes`, `cut`: as it was cut out, or `corrected`."""
        return f"object_{self.number}_{what}.png"

    @property
    def used(self) -> str:
        """The file that is composited."""
        return self.name("corrected") if self.corrected else self.file
