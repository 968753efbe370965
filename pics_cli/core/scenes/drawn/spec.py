"""What a plan of a scene holds: numbers only, cheap to pickle.

Lengths: a frame's side at the distance that the camera looks at is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pics_cli.core.recipes.dataset import Pool, SceneRelation
from pics_cli.core.scenes.drawn.camera import Camera, Point, Vec, spin
from pics_cli.core.scenes.drawn.colors import Palette
from pics_cli.core.scenes.drawn.shapes import FAMILIES, build
from pics_cli.core.scenes.drawn.solids import Knobs, Shape

CATEGORIES: tuple[str, ...] = tuple(FAMILIES)
SIZES = (64, 1024)
MOST_OBJECTS = 4


@dataclass(frozen=True)
class SceneSettings:
    """What scenes a recipe asks for.

    Attributes:
        size: side of the square picture in pixels, 64 to 1024.
        objects: K, 1 to 4.
        relations: weights with which the relation of the first pair, and of each further object to an earlier one, is
            drawn. Where no earlier object can carry or hold another one, the draw is among the other relations.
        turn: alternative views are turned by up to this many degrees, and raised or lowered a little in proportion.
        light: their light, from 0 (the scene's) to 1 (quite another direction and colour).
        detail: resolution at which they are drawn, over that of the object in the picture, 1 or more.
    """

    size: int
    objects: int
    relations: tuple[tuple[SceneRelation, float], ...]
    turn: float
    light: float
    detail: float = 1.0

    def __post_init__(self) -> None:
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise ValueError(f"size is {self.size}, expected {SIZES[0]} to {SIZES[1]}")
        if not 1 <= self.objects <= MOST_OBJECTS:
            raise ValueError(f"objects is {self.objects}, expected 1 to {MOST_OBJECTS}")
        if any(weight < 0 for _, weight in self.relations) or not sum(weight for _, weight in self.relations) > 0:
            raise ValueError("relations need weights of at least 0, one of them above 0")


@dataclass(frozen=True)
class Look:
    """Surface of an object: pattern and colours, gloss from 0 (matt) to 1 (glazed)."""

    pattern: str
    palette: Palette
    seed: int
    gloss: float
    metal: bool


@dataclass(frozen=True)
class Thing:
    """One object of a plan.

    Attributes:
        category, family, knobs: its shape.
        box: visible part, x0, y0, x1, y1, half-open pixels: an estimate, good to a few pixels.
        area: visible pixels: an estimate, good to a tenth.
        position: of the point it stands on.
        yaw: turn about the vertical axis, radians.
        scale: length of its longest side.
        look: its surface.
    """

    category: str
    box: tuple[float, float, float, float]
    area: float
    family: str
    knobs: Knobs
    position: Point
    yaw: float
    scale: float
    look: Look

    @property
    def shape(self) -> Shape:
        """The shape at unit size."""
        return build(self.category, self.family, self.knobs)

    def inward(self, p: Vec) -> Vec:
        """World points in the shape's own frame."""
        x, y, z = (c - o for c, o in zip(p, self.position, strict=True))
        x, y, z = spin((x, y, z), -self.yaw)
        k = 1 / self.scale
        return x * k, y * k, z * k

    def inward_direction(self, d: Vec) -> Vec:
        """World directions in the shape's own frame; distances along them stay what they are."""
        x, y, z = spin(d, -self.yaw)
        k = 1 / self.scale
        return x * k, y * k, z * k

    def outward(self, q: Vec) -> Vec:
        """Points of the shape's own frame in the world."""
        x, y, z = (c * self.scale for c in spin(q, self.yaw))
        return x + self.position[0], y + self.position[1], z + self.position[2]

    def outward_points(self, points_N3: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Points of the shape's own frame in the world, float [N, 3]."""
        c, s = math.cos(self.yaw) * self.scale, math.sin(self.yaw) * self.scale
        x, y, z = points_N3.T
        px, py, pz = self.position
        moved = np.empty((len(x), 3))
        moved[:, 0] = c * x - s * y + px
        moved[:, 1] = s * x + c * y + py
        moved[:, 2] = z * self.scale + pz
        return moved

    def foot(self) -> npt.NDArray[np.float64]:
        """Outline on the ground of all of it, float [M, 2]."""
        flat = np.column_stack([self.shape.foot, np.zeros(len(self.shape.foot))])
        return self.outward_points(flat)[:, :2]


@dataclass(frozen=True)
class Light:
    """One large lamp and the light of the surroundings.

    Attributes:
        towards: unit vector to the lamp.
        key, sky, bounce: linear red, green, blue of the lamp, of light from above and from below.
        spread: half the lamp's angular width in radians: how soft shadows are.
    """

    towards: Point
    key: Point
    sky: Point
    bounce: Point
    spread: float


@dataclass(frozen=True)
class Stage:
    """Ground and backdrop.

    Attributes:
        ground: family of the ground's pattern.
        tones: its colours, dark to light.
        tile: length of one tile of its texture.
        turn: of the texture, radians.
        backdrop: family of what is behind the ground.
        colours: its low and high colour.
        wall: y at which the ground ends.
        seed: what the details are drawn from.
        pools: strength of the uneven light on ground and wall.
    """

    ground: str
    tones: tuple[int, int, int]
    tile: float
    turn: float
    backdrop: str
    colours: tuple[int, int]
    wall: float
    seed: int
    pools: float


@dataclass(frozen=True)
class ScenePlan:
    """Everything that `render` needs.

    Attributes:
        things: the objects.
        order: their indices, front to back; a container counts as in front of what it holds.
        planned: (i, j, relation, subject) of the pairs that were placed on purpose, i < j.
    """

    style: SceneSettings
    pool: Pool
    seed: int
    index: int
    things: tuple[Thing, ...]
    order: tuple[int, ...]
    planned: tuple[tuple[int, int, SceneRelation, int], ...]
    camera: Camera
    light: Light
    stage: Stage

    def held(self) -> dict[int, int]:
        """Container of each object that is in one."""
        return {
            (j if subject == i else i): subject for i, j, relation, subject in self.planned if relation == "containing"
        }
