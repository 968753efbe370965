"""Placement of a scene's objects: on the ground, on and in each other, hiding each other by a wanted part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.scenes.drawn.camera import Camera
from pics_cli.core.scenes.drawn.roles import Role, root_of
from pics_cli.core.scenes.drawn.silhouettes import RASTER, Silhouette, front_wall, projected_box, separation, silhouette
from pics_cli.core.scenes.drawn.spec import SceneObject

# Of the picture: the smallest visible area of an object.
_MIN_AREA = 0.0165
# Parts of an object: visible at least; hidden if it is occluded on purpose; hidden by the front wall of its container;
# hidden at most if it is touched on purpose.
_MIN_VISIBLE = 0.38
_OCCLUDED = (0.115, 0.56)
_BEHIND_FRONT_WALL = (0.06, 0.58)
_MAX_TOUCH = 0.03
_TRIES = 5
# Apparent length of the longest side, as a part of the frame's side.
_LENGTHS = {"table": (0.42, 0.62), "plate": (0.36, 0.52), "book": (0.28, 0.42), "bottle": (0.28, 0.46)}
_CONTAINER_LENGTHS = {"bowl": (0.36, 0.52), "cup": (0.3, 0.42)}
_DEFAULT_LENGTH = (0.21, 0.38)
# Factor of the lengths by number of objects.
_CROWDING = (1.12, 1.0, 0.88, 0.8, 0.72, 0.65)


class PlacementError(Exception):
    """An object has no room in this draw; another draw may fit."""


def _count(mask: npt.NDArray[np.generic]) -> int:
    return int(np.count_nonzero(mask))


class Layout:
    """Objects placed so far, their silhouettes on the raster, and who is in front.

    Args:
        camera: of the raster.
        ground_end: y where the ground ends.
        roles: of all objects.
    """

    def __init__(self, camera: Camera, ground_end: float, roles: Sequence[Role], rng: np.random.Generator) -> None:
        self.camera, self.ground_end, self.roles, self.rng = camera, ground_end, roles, rng
        self.objects: list[SceneObject] = []
        self.silhouettes: list[Silhouette] = []

    def add(self, obj: SceneObject) -> None:
        """Place the next object.

        Raises:
            PlacementError: it does not fit.
        """
        role = self.roles[len(self.objects)]
        for _ in range(_TRIES):
            try:
                if role.parent is None:
                    placed = self._anywhere(obj, self._sample_length(obj, role))
                elif role.hosted:
                    placed = self._hosted(obj, role, self.objects[role.parent])
                elif role.relation == "apart":
                    placed = self._apart(obj, role, role.parent)
                else:
                    placed = self._overlapping(obj, role, role.parent)
            except PlacementError:
                continue
            x0, y0, x1, y1 = projected_box(placed, self.camera)
            in_frame = min(x0, y0) > -0.008 * RASTER and max(x1, y1) < 1.008 * RASTER
            if in_frame and (role.hosted or self._is_ground_free(placed)):
                self.objects.append(placed)
                self.silhouettes.append(silhouette(placed, self.camera))
                return
        raise PlacementError

    def _is_ground_free(self, placed: SceneObject) -> bool:
        """Whether the ground under an object is free, but for a brush with its neighbours."""
        footprint = placed.footprint()
        if float(footprint[:, 1].max()) > self.ground_end - 0.02:
            return False
        others = [other for other, role in zip(self.objects, self.roles, strict=False) if not role.hosted]
        return all(
            separation(footprint, o.footprint(), self.camera.eye, -0.04 * min(o.scale, placed.scale)) for o in others
        )

    def _sample_length(self, obj: SceneObject, role: Role) -> float:
        """Length of an object's longest side over its depth."""
        lengths = _CONTAINER_LENGTHS if role.contains else _LENGTHS
        low, high = lengths.get(obj.category, _DEFAULT_LENGTH)
        length = float(self.rng.uniform(low, high))
        return length if role.contains or role.supports else length * _CROWDING[len(self.roles) - 1]

    def _on_ground(self, obj: SceneObject, x: float, y: float, length: float) -> SceneObject:
        """On the ground at world x, y; `length`: see `_sample_length`."""
        position = (x, y, 0.0)
        scale = length * RASTER * self.camera.depth(position) / self.camera.focal
        return replace(obj, position=position, scale=scale)

    def _anywhere(self, obj: SceneObject, length: float) -> SceneObject:
        """On the ground, its foot in the middle and lower part of the picture, wholly inside."""
        for _ in range(12):
            column, row = self.rng.uniform(0.14, 0.86) * RASTER, self.rng.uniform(0.42, 0.95) * RASTER
            x, y = self.camera.ground_point(column, row)
            placed = self._on_ground(obj, x, y, length)
            x0, y0, x1, y1 = projected_box(placed, self.camera)
            headroom = 0.2 * (y1 - y0) if self.roles[len(self.objects)].supports else 0
            if min(x0, y0 - headroom) > 1 and max(x1, y1) < RASTER - 1 and y + placed.scale * 0.3 < self.ground_end:
                return placed
        raise PlacementError

    def _apart(self, obj: SceneObject, role: Role, parent: int) -> SceneObject:
        length = self._sample_length(obj, role)
        # Three pixels of the smallest picture are twelve here.
        around = cv2.dilate(self.silhouettes[parent], np.ones((25, 25), np.uint8))
        for _ in range(6):
            placed = self._anywhere(obj, length)
            if not np.any(silhouette(placed, self.camera)[around > 0]):
                return placed
        raise PlacementError

    def _overlapping(self, obj: SceneObject, role: Role, parent: int) -> SceneObject:
        """Touching its parent, or occluding it or occluded by it: moved sideways until the overlap is as wanted."""
        length = self._sample_length(obj, role)
        touching = role.relation == "touching"
        parent_x, parent_y, _ = self.objects[parent].position
        other = self.silhouettes[parent]
        placed = self._on_ground(obj, parent_x, parent_y, length)
        radii = _half_depth(self.objects[parent]) + _half_depth(placed)
        if touching:
            behind = float(self.rng.uniform(-0.5, 0.5)) * radii
        else:
            behind = float(self.rng.choice((-1, 1))) * radii * float(self.rng.uniform(0.75, 1.3))
        placed = self._on_ground(obj, parent_x, parent_y + behind, length)
        own = silhouette(placed, self.camera)
        part = 0.5 * _MAX_TOUCH * float(self.rng.random()) if touching else float(self.rng.uniform(0.15, 0.5))
        wanted = part * max(_count(own if behind > 0 else other), 1)
        depth = self.camera.depth(placed.position)
        side = 1 if self.rng.random() < 0.5 else -1
        for _ in range(2):  # moving it changes its perspective a little, so the second step corrects the first
            shift = sideways_shift(own, other, wanted, side)
            x, y, _ = placed.position
            placed = self._on_ground(obj, x + shift * depth / self.camera.focal, y, length)
            own = silhouette(placed, self.camera)
        shared = _count(own & other)
        if touching:
            fits = 0 < shared <= _MAX_TOUCH * min(_count(own), _count(other))
        else:
            fits = _OCCLUDED[0] <= shared / max(_count(own if behind > 0 else other), 1) <= _OCCLUDED[1]
        if not fits:
            raise PlacementError
        return placed

    def _hosted(self, obj: SceneObject, role: Role, host: SceneObject) -> SceneObject:
        if role.relation == "supporting":
            return self._on_top(obj, host)
        placed = self._inside(obj, host)
        own = silhouette(placed, self.camera)
        assert role.parent is not None
        wall = front_wall(host, self.silhouettes[role.parent], self.camera)
        if not _BEHIND_FRONT_WALL[0] <= _count(own & wall) / max(_count(own), 1) <= _BEHIND_FRONT_WALL[1]:
            raise PlacementError
        return placed

    def _on_top(self, obj: SceneObject, host: SceneObject) -> SceneObject:
        """Standing on the host's support."""
        assert host.shape.support is not None
        height, half_x, half_y = (value * host.scale for value in host.shape.support)
        radius = float(np.linalg.norm(obj.shape.footprint, axis=1).max())
        depth = self.camera.depth(host.position)
        max_scale = float(self.rng.uniform(0.2, 0.34)) * RASTER * depth / self.camera.focal
        scale = min(max_scale, 0.96 * min(half_x, half_y) / radius)
        room_x, room_y = max(half_x - radius * scale, 0), max(half_y - radius * scale, 0)
        x, y = float(self.rng.uniform(-1, 1)) * room_x * 0.9, float(self.rng.uniform(-1, 1)) * room_y * 0.9
        c, s = math.cos(host.yaw), math.sin(host.yaw)
        px, py, pz = host.position
        return replace(obj, position=(px + c * x - s * y, py + s * x + c * y, pz + height), scale=scale)

    def _inside(self, obj: SceneObject, host: SceneObject) -> SceneObject:
        """In the cavity of the host, as low as its walls let it be."""
        cavity = host.shape.cavity
        assert cavity is not None
        walls = cavity[:, :2].astype(np.float64) * host.scale
        rim_z, rim_r = walls[-1].tolist()
        local_heights = np.linspace(0, obj.shape.height, 24)
        radii = obj.shape.radius_at(local_heights)
        scale = float(self.rng.uniform(0.5, 0.93)) * rim_r / float(radii.max())
        if obj.shape.height * scale < 0.5 * rim_z:
            raise PlacementError
        for z in np.linspace(walls[0, 0], rim_z, 14):
            heights = z + local_heights * scale
            fits = radii * scale <= np.interp(heights, walls[:, 0], walls[:, 1]) + 0.004 * host.scale
            if fits[heights < rim_z].all():
                px, py, pz = host.position
                return replace(obj, position=(px, py, pz + float(z)), scale=scale)
        raise PlacementError

    def order(self) -> tuple[int, ...]:
        """Indices front to back: what stands on something is in front of it, a container in front of its content."""
        roots = [k for k in range(len(self.objects)) if root_of(self.roles, k) == k]
        eye, outlines = self.camera.eye, {k: self.objects[k].footprint() for k in roots}
        wins = {k: sum(separation(outlines[k], outlines[i], eye) > 0 for i in roots if i != k) for k in roots}
        order: list[int] = []
        for root in sorted(roots, key=lambda k: (-wins[k], k)):
            order += self._stack(root)
        return tuple(order)

    def _stack(self, k: int) -> list[int]:
        """An object and all that stands on and in it, front to back."""
        guests = [i for i, role in enumerate(self.roles) if role.hosted and role.parent == k]
        above = [j for i in guests for j in self._stack(i)]
        return [k, *above] if self.roles[k].contains else [*above, k]

    def visible(self, order: Sequence[int]) -> list[Silhouette]:
        """Visible part of each object on the raster, for an order from front to back.

        Raises:
            PlacementError: an object is too small or hidden too much.
        """
        visible = [outline.copy() for outline in self.silhouettes]
        free = np.ones((RASTER, RASTER), np.uint8)
        for k in order:
            outline = self.silhouettes[k]
            if self.roles[k].contains:
                wall = front_wall(self.objects[k], outline, self.camera)
                content = next(i for i, r in enumerate(self.roles) if r.parent == k and r.relation == "containing")
                outline = outline & (1 - (self.silhouettes[content] & (1 - wall)))
            visible[k] = outline & free
            free &= 1 - visible[k]
            if _count(visible[k]) < max(_MIN_AREA * RASTER**2, _MIN_VISIBLE * _count(self.silhouettes[k])):
                raise PlacementError
        return visible


def _half_depth(obj: SceneObject) -> float:
    """How far an object's footprint reaches towards and away from the viewer."""
    return float(np.abs(obj.footprint()[:, 1] - obj.position[1]).max())


def sideways_shift(own: Silhouette, other: Silhouette, wanted: float, side: int) -> int:
    """By how many pixels to move a silhouette sideways so that it shares about `wanted` pixels with another one.

    Args:
        side: 1 if it comes from the right, -1 from the left.
    """
    x, _, other_width, _ = cv2.boundingRect(other)
    own_x, _, own_width, _ = cv2.boundingRect(own)
    adjacent = (x + other_width - own_x) if side > 0 else (x - own_x - own_width)
    low, high, raster = 0, max(other_width, own_width), own.shape[1]
    while high - low > 1:
        step = (low + high) // 2
        shift = adjacent - side * step
        a, b = max(shift, 0), min(raster + shift, raster)
        shared = _count(other[:, a:b] & own[:, a - shift : b - shift]) if b > a else 0
        if shared > wanted:
            high = step
        else:
            low = step
    return adjacent - side * high
