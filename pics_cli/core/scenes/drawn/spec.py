"""The plan of a scene, which is drawn afterwards: settings, objects, light, background. Cheap to pickle.

Lengths: the frame's side at the distance of the point that the camera looks at is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.lighting import Lighting
from pics_cli.core.recipes.sources import Pool, SceneRelation
from pics_cli.core.scenes.drawn.camera import Camera, FloatBox, Point, Vec, rotate_z
from pics_cli.core.scenes.drawn.colors import Palette
from pics_cli.core.scenes.drawn.shapes import ShapeParameters, build_shape
from pics_cli.core.scenes.drawn.solids import Shape

SIZES = (64, 1024)
MAX_OBJECTS = 6


@dataclass(frozen=True)
class SceneSettings:
    """Settings of the scenes of a recipe.

    Attributes:
        size: side of the square picture in pixels, 64 to 1024.
        num_objects: K, 1 to 6.
        relations: weights with which the relation of the first pair, and of each further object to an earlier one, is
            drawn. Where no earlier object can support or contain another one, the draw is among the other relations.
        turn: alternate views are turned by up to this many degrees, and raised or lowered a little in proportion.
        light: their light, from 0 (the scene's) to 1 (quite another direction and colour).
        detail: resolution at which they are drawn, over that of the object in the picture, 1 or more.

    Raises:
        ValueError: a value is out of range.
    """

    size: int
    num_objects: int
    relations: tuple[tuple[SceneRelation, float], ...]
    turn: float
    light: float
    detail: float = 1.0

    def __post_init__(self) -> None:
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise ValueError(f"size is {self.size}, expected {SIZES[0]} to {SIZES[1]}")
        if not 1 <= self.num_objects <= MAX_OBJECTS:
            raise ValueError(f"num_objects is {self.num_objects}, expected 1 to {MAX_OBJECTS}")
        if any(weight < 0 for _, weight in self.relations) or not sum(weight for _, weight in self.relations) > 0:
            raise ValueError("relations need weights of at least 0, one of them above 0")


@dataclass(frozen=True)
class Material:
    """Surface of an object.

    Attributes:
        pattern: name of its texture's pattern (see `patterns`).
        palette: colours of the slots: main, second main, accent, inside.
        seed: of the texture.
        gloss: from 0 (matt) to 1 (glazed).
        metal: whether it mirrors its surroundings in its own colour.
    """

    pattern: str
    palette: Palette
    seed: int
    gloss: float
    metal: bool


@dataclass(frozen=True)
class SceneObject:
    """One object: its shape, where it stands and what it is made of.

    Attributes:
        category: its class.
        box: visible part, x0, y0, x1, y1, half-open pixels: an estimate, good to a few pixels.
        area: visible pixels: an estimate, good to a tenth.
        family, parameters: of the shape (see `shapes`).
        position: of the point it stands on.
        yaw: rotation about the vertical axis, radians.
        scale: length of its longest side.
        material: of its surface.
    """

    category: str
    box: FloatBox
    area: float
    family: str
    parameters: ShapeParameters
    position: Point
    yaw: float
    scale: float
    material: Material

    @property
    def shape(self) -> Shape:
        """The shape at unit size, in the object's own frame."""
        return build_shape(self.family, self.parameters)

    @property
    def centre(self) -> Point:
        """The world point at half its height."""
        x, y, z = self.position
        return x, y, z + 0.5 * self.shape.height * self.scale

    def to_local(self, points: Vec) -> Vec:
        """World points in the object's own frame."""
        x, y, z = (p - o for p, o in zip(points, self.position, strict=True))
        return self.to_local_direction((x, y, z))

    def to_local_direction(self, directions: Vec) -> Vec:
        """World directions in the object's own frame; distances along them stay what they are."""
        x, y, z = rotate_z(directions, -self.yaw)
        k = 1 / self.scale
        return x * k, y * k, z * k

    def to_world(self, points: Vec) -> Vec:
        """Points of the object's own frame in the world."""
        x, y, z = (p * self.scale for p in rotate_z(points, self.yaw))
        return x + self.position[0], y + self.position[1], z + self.position[2]

    def to_world_points(self, points_N3: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """`to_world` for points as rows, float [N, 3]."""
        c, s = math.cos(self.yaw) * self.scale, math.sin(self.yaw) * self.scale
        x, y, z = points_N3.T
        px, py, pz = self.position
        return np.stack([c * x - s * y + px, s * x + c * y + py, z * self.scale + pz], axis=1)

    def footprint(self) -> npt.NDArray[np.float64]:
        """Convex outline on the ground, world x and y: float [M, 2]."""
        flat = np.column_stack([self.shape.footprint, np.zeros(len(self.shape.footprint))])
        return self.to_world_points(flat)[:, :2]


@dataclass(frozen=True)
class Light:
    """One large lamp (the key light) and the ambient light of the surroundings.

    Attributes:
        direction: unit vector to the lamp.
        key, sky, bounce: linear red, green, blue of the lamp, and of ambient light from above and from below.
        angular_radius: half the lamp's angular width in radians: how soft shadows are.
    """

    direction: Point
    key: Point
    sky: Point
    bounce: Point
    angular_radius: float


@dataclass(frozen=True)
class Background:
    """The ground and the backdrop behind it.

    Attributes:
        ground: family of the ground's texture (see `grounds`).
        ground_tones: its colours, dark to light.
        tile_size: length of one tile of its texture.
        tile_angle: rotation of its texture, radians.
        backdrop: family of the backdrop (see `background.BACKDROPS`).
        backdrop_colors: its low and high colour.
        ground_end: y at which the ground ends and near backdrops stand.
        seed: of the details.
        unevenness: strength of broad light and dark areas on ground and backdrop.
    """

    ground: str
    ground_tones: tuple[int, int, int]
    tile_size: float
    tile_angle: float
    backdrop: str
    backdrop_colors: tuple[int, int]
    ground_end: float
    seed: int
    unevenness: float


@dataclass(frozen=True)
class PairRelation:
    """How two objects stand to each other.

    Attributes:
        objects: their indices, i < j.
        relation: what holds between them.
        subject: the one that occludes, supports or contains; objects[0] where they are apart or touch.
    """

    objects: tuple[int, int]
    relation: SceneRelation
    subject: int


@dataclass(frozen=True)
class ScenePlan:
    """Everything that `render_scene` needs.

    Attributes:
        settings, pool, seed, index: arguments of `plan_scene`, of which the plan is a function.
        objects: the K objects.
        order: their indices, front to back; a container counts as in front of what it contains.
        placed_pairs: the pairs that were placed in relation to each other, sorted; the other pairs' relations follow
            from the masks.
        camera, light, background: of the picture.
    """

    settings: SceneSettings
    pool: Pool
    seed: int
    index: int
    objects: tuple[SceneObject, ...]
    order: tuple[int, ...]
    placed_pairs: tuple[PairRelation, ...]
    camera: Camera
    light: Light
    background: Background

    @property
    def lighting(self) -> Lighting:
        """The lamp as seen by the camera."""
        x, y, z = self.light.direction
        lamp, sky = (sum(color) for color in (self.light.key, self.light.sky))
        return Lighting(
            azimuth=math.degrees(math.atan2(x, -y)),
            elevation=math.degrees(math.asin(min(z, 1.0))),
            radius=math.degrees(self.light.angular_radius),
            strength=lamp * z / (lamp * z + sky),
            pitch=math.degrees(self.camera.pitch),
        )

    def containers(self) -> dict[int, int]:
        """Container of each object that is in one."""
        return {sum(p.objects) - p.subject: p.subject for p in self.placed_pairs if p.relation == "containing"}
