"""What a shape is: solids, what they cast shadows with, their silhouettes, where other things can stand in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pics_cli.core.data.synth.camera import Array
from pics_cli.core.data.synth.solids import Solid

Points = npt.NDArray[np.float64]
Knobs = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Caster:
    """Cross-sections of a part, for shadows: discs x, y, r at heights z, cut by planes if it is a convex body.

    Attributes:
        discs: float [M, 4]: z, x, y, r; z rising.
        sides: float [F, 4]: planes of a convex body, used instead of r; None where it is round.
    """

    discs: Array
    sides: Array | None = None

    @cached_property
    def ball(self) -> tuple[float, float, float, float]:
        """A ball around all of it: x, y, z and radius."""
        z, x, y, r = self.discs.astype(np.float64).T
        cx, cy, cz = x.mean(), y.mean(), (z[0] + z[-1]) / 2
        reach = np.sqrt((np.hypot(x - cx, y - cy) + r) ** 2 + (z - cz) ** 2).max()
        return float(cx), float(cy), float(cz), float(reach)


@dataclass(frozen=True, eq=False)
class Shape:
    """One shape at unit size.

    Attributes:
        solids: what rays meet.
        casters: what casts shadows.
        pieces: convex point clouds, float [P, 3] each; their hulls in the picture make the silhouette.
        foot: convex outline of everything as seen from above, float [M, 2].
        height: of the highest point.
        top: height and half sides (x, y) of the flat place where things can stand; None where there is none.
        cavity: float [P, 4], the inner curve of a hollow shape (see `Lathe`).
    """

    solids: tuple[Solid, ...]
    casters: tuple[Caster, ...]
    pieces: tuple[Points, ...]
    foot: Points
    height: float
    top: tuple[float, float, float] | None = None
    cavity: Array | None = None

    @cached_property
    def points(self) -> Points:
        """The pieces' points one after the other, float [N, 3]; piece i has those from starts[i] to starts[i + 1]."""
        return np.concatenate(self.pieces)

    @cached_property
    def columns(self) -> Points:
        """The same by columns, with a fourth row of ones: float [4, N]."""
        return np.vstack([self.points.T, np.ones(len(self.points))])

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """See `points`."""
        return (0, *np.cumsum([len(piece) for piece in self.pieces]).tolist())

    def radius_at(self, z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Largest distance from the axis at heights z, 0 above and below the shape: float as z."""
        radius = np.zeros_like(z)
        for caster in self.casters:
            height, x, y, r = caster.discs.T
            inside = (z >= height[0]) & (z <= height[-1])
            reach = np.interp(z, height, np.hypot(x, y) + r)
            radius = np.where(inside, np.maximum(radius, reach), radius)
        return radius
