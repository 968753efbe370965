"""The plan of a rendered scene: numbers and names of files only, cheap to pickle. Axes: x right, y away, z up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pics_cli.core.recipes.sources import RenderedPool
from pics_cli.core.scenes.drawn.camera import Camera
from pics_cli.core.scenes.drawn.spec import PairRelation, SceneSettings
from pics_cli.core.scenes.rendered.catalogue import ModelEntry
from pics_cli.core.scenes.rendered.heights import Cavity
from pics_cli.core.scenes.rendered.lights import SceneLight
from pics_cli.core.scenes.rendered.placement import PlacedModel


@dataclass(frozen=True)
class UsableModel:
    """A model that can stand in a scene, and what it is good for. Its longest side is 1; see `models.Model`.

    Attributes:
        entry: which one.
        size: width, depth and height.
        length: longest side in centimetres.
        support: height of a level surface; None where it has none.
        cavity: its hollow; None where it has none.
        packed: points of its surface, uint16 [N, 3], of which 0 to 65535 stand for -1 to 1.
    """

    entry: ModelEntry
    size: tuple[float, float, float]
    length: float
    support: float | None
    cavity: Cavity | None
    packed: npt.NDArray[np.uint16] = field(compare=False, repr=False)

    @property
    def points(self) -> npt.NDArray[np.float32]:
        """Points of its surface, float32 [N, 3]."""
        points: npt.NDArray[np.float32] = self.packed.astype(np.float32) / np.float32(32767.5) - np.float32(1)
        return points


def pack_points(points: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Coordinates between -1 and 1 as `UsableModel.packed`, good to 1/65000: half the memory."""
    packed: npt.NDArray[np.uint16] = np.rint((points + 1) * 32767.5).clip(0, 65535).astype(np.uint16)
    return packed


@dataclass(frozen=True)
class Material:
    """Raw material of one pool.

    Attributes:
        models: sorted by name.
        hdris, grounds: panoramas and photographs, sorted.
    """

    models: tuple[UsableModel, ...]
    hdris: tuple[Path, ...]
    grounds: tuple[Path, ...]


@dataclass(frozen=True)
class Surface:
    """A photograph on the ground or on a wall.

    Attributes:
        photo: its file.
        crop: part of it that is used: left, top and side, as parts of its shorter side.
        side: length of that part in the scene; it is repeated in mirror image.
        turn: rotation, degrees.
        level: mean reflectance, 0 to 1.
        contrast: of the photograph's own light and dark, 0 (one even colour) to 1.
        saturation: of its colours, 0 to 1.
        roughness: of the surface, 0 to 1.
    """

    photo: Path
    crop: tuple[float, float, float]
    side: float
    turn: float
    level: float
    contrast: float
    saturation: float
    roughness: float


@dataclass(frozen=True)
class RenderedPlan:
    """Everything that `render_scene` needs.

    Attributes:
        settings, pool, seed, index: arguments of `plan_scene`, of which, with the raw material, the plan is a function.
        samples: paths per pixel.
        objects: the K objects.
        areas: their visible pixels, estimates.
        boxes: of what is visible of them, estimates, x0, y0, x1, y1.
        bystanders: models that belong to the background.
        order: indices of the objects front to back; a container counts as in front of what it contains.
        placed_pairs: the pairs that were placed in relation to each other.
        camera: of the picture.
        lighting: of the scene.
        other_lighting: of each object's alternate view.
        ground: what covers the ground.
        wall: what covers the wall; None where there is none.
        wall_distance: y at which the wall stands, and the ground ends.
    """

    settings: SceneSettings
    pool: RenderedPool
    seed: int
    index: int
    samples: int
    objects: tuple[PlacedModel, ...]
    areas: tuple[float, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    bystanders: tuple[PlacedModel, ...]
    order: tuple[int, ...]
    placed_pairs: tuple[PairRelation, ...]
    camera: Camera
    lighting: SceneLight
    other_lighting: tuple[SceneLight, ...]
    ground: Surface
    wall: Surface | None
    wall_distance: float
