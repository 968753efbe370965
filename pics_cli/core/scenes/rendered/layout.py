"""Placement of a scene's models: on the ground, on and in each other, hiding each other by a wanted part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np

from pics_cli.core.scenes.drawn.camera import Camera
from pics_cli.core.scenes.drawn.layout import PlacementError, sideways_shift
from pics_cli.core.scenes.drawn.roles import Role
from pics_cli.core.scenes.rendered.placement import (
    RASTER,
    Array,
    Mask,
    PlacedModel,
    collide,
    depth_map,
    drop,
    outline_box,
)
from pics_cli.core.scenes.rendered.spec import UsableModel

# Of the picture: the smallest visible area of an object.
_MIN_AREA = 0.014
# Parts of an object: visible at least; hidden if it is occluded on purpose; hidden at most if it is touched on purpose.
_MIN_VISIBLE = 0.4
_OCCLUDED = (0.1, 0.55)
_MAX_TOUCH = 0.03
# Of the lower one's height: how far two models may overlap in height, which the coarseness of the grid explains.
_MAX_OVERLAP = 0.01
# Apparent length of the longest side, as a part of the frame's side: of hosts, and of others by number of objects.
_HOST_LENGTHS = (0.38, 0.62)
_LENGTHS = ((0.36, 0.62), (0.3, 0.56), (0.24, 0.44), (0.2, 0.38))
_SHORTEST = 0.18
# Of its box: what a thing must fill, or it is a lattice.
_MIN_FILLED = 0.3
_TRIES = 6


class Layout:
    """Models placed so far.

    Args:
        camera: of a raster of `RASTER` pixels.
        wall_distance: y where the ground ends.
        roles: of all objects.
        models: of all objects.
        rng: decides where they go.

    Attributes:
        objects, bystanders: placed so far.
    """

    def __init__(
        self, camera: Camera, wall_distance: float, roles: Sequence[Role], models: Sequence[UsableModel],
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.camera, self.wall_distance, self.roles, self.models, self.rng = camera, wall_distance, roles, models, rng
        self.objects: list[PlacedModel] = []
        self.bystanders: list[PlacedModel] = []
        self._points: list[Array] = []
        self._depths: list[Array] = []

    def add_objects(self) -> None:
        """Place all objects, a host before its guests.

        Raises:
            PlacementError: one does not fit.
        """
        for role, model in zip(self.roles, self.models, strict=True):
            for _ in range(_TRIES):
                try:
                    placed = self._place(role, model)
                except PlacementError:
                    continue
                points = placed.to_world(model.points)
                if self._is_free(placed, points, hosted_by=role.parent if role.hosted else None):
                    x0, y0, x1, y1 = outline_box(points[::4], self.camera)
                    if min(x0, y0) > -1 and max(x1, y1) < RASTER + 1:
                        self._keep(placed, points, self.objects)
                        break
            else:
                raise PlacementError

    def _keep(self, placed: PlacedModel, points: Array, where: list[PlacedModel]) -> None:
        where.append(placed)
        self._points.append(points)
        self._depths.append(depth_map(points, self.camera))

    def _is_free(self, placed: PlacedModel, points: Array, hosted_by: int | None) -> bool:
        if float(points[:, 1].max()) > self.wall_distance - 0.01:
            return False
        others = [*self.objects, *self.bystanders]
        return not any(
            collide(points, other_points, _MAX_OVERLAP * min(placed.size[2], other.size[2]))
            for k, (other, other_points) in enumerate(zip(others, self._points, strict=True))
            if k != hosted_by
        )

    def _place(self, role: Role, model: UsableModel) -> PlacedModel:
        yaw = float(self.rng.uniform(-math.pi, math.pi))
        if role.parent is None:
            low, high = _HOST_LENGTHS if role.supports or role.contains else _LENGTHS[len(self.roles) - 1]
            return self._anywhere(model, yaw, float(self.rng.uniform(low, high)), headroom=role.supports)
        if role.relation == "supporting":
            return self._on_top(model, yaw, role.parent)
        if role.relation == "containing":
            return self._inside(model, yaw, role.parent)
        length = self._length_beside(model, role.parent, role.supports or role.contains)
        if role.relation == "apart":
            placed = self._anywhere(model, yaw, length, headroom=role.supports)
            around = cv2.dilate(np.isfinite(self._depths[role.parent]).astype(np.uint8), np.ones((7, 7), np.uint8))
            if np.any(np.isfinite(depth_map(placed.to_world(model.points), self.camera)) & (around > 0)):
                raise PlacementError
            return placed
        return self._overlapping(model, yaw, length, role.parent, touching=role.relation == "touching")

    def _length_beside(self, model: UsableModel, parent: int, host: bool) -> float:
        """Apparent length beside a parent: as their true sizes compare, within reason."""
        other = self.objects[parent]
        apparent = other.scale * self.camera.focal / self.camera.depth(other.position) / RASTER
        ratio = (model.length / self.models[parent].length) ** 0.5
        low, high = _HOST_LENGTHS if host else (_SHORTEST, 0.58)
        return float(np.clip(apparent * ratio * self.rng.uniform(0.85, 1.15), low, high))

    def _on_ground(self, model: UsableModel, yaw: float, x: float, y: float, length: float) -> PlacedModel:
        scale = length * RASTER * self.camera.depth((x, y, 0.0)) / self.camera.focal
        return PlacedModel(model.entry, model.size, (x, y, 0.0), yaw, scale)

    def _anywhere(self, model: UsableModel, yaw: float, length: float, headroom: bool) -> PlacedModel:
        points = model.points
        for _ in range(8):
            column, row = self.rng.uniform(0.14, 0.86) * RASTER, self.rng.uniform(0.42, 0.93) * RASTER
            x, y = self.camera.ground_point(column, row)
            placed = self._on_ground(model, yaw, x, y, length)
            x0, y0, x1, y1 = outline_box(placed.to_world(points)[::4], self.camera)
            room = 0.25 * (y1 - y0) if headroom else 0
            if min(x0, y0 - room) > 0 and max(x1, y1) < RASTER:
                return placed
        raise PlacementError

    def _overlapping(self, model: UsableModel, yaw: float, length: float, parent: int, touching: bool) -> PlacedModel:
        """Beside its parent in the picture, nearer or farther: moved sideways until the overlap is as wanted."""
        other, other_mask = self.objects[parent], np.isfinite(self._depths[parent]).astype(np.uint8)
        x, y, _ = other.position
        points = model.points
        own = self._on_ground(model, yaw, x, y, length)
        reach = 0.5 * (float(np.ptp(self._points[parent][:, 1])) + float(np.ptp(own.to_world(points)[:, 1])))
        if touching:
            behind = float(self.rng.uniform(-0.5, 0.5)) * reach
        else:
            behind = float(self.rng.choice((-1, 1))) * reach * float(self.rng.uniform(0.7, 1.35))
        y += behind
        own = self._on_ground(model, yaw, x, y, length)
        mask = np.isfinite(depth_map(own.to_world(points), self.camera)).astype(np.uint8)
        part = 0.5 * _MAX_TOUCH * float(self.rng.random()) if touching else float(self.rng.uniform(0.14, 0.5))
        hidden = mask if behind > 0 else other_mask
        wanted = part * max(int(np.count_nonzero(hidden)), 1)
        side = 1 if self.rng.random() < 0.5 else -1
        depth = self.camera.depth(own.position)
        for _ in range(2):  # moving it changes its perspective a little, so the second step corrects the first
            x += sideways_shift(mask, other_mask, wanted, side) * depth / self.camera.focal
            own = self._on_ground(model, yaw, x, y, length)
            mask = np.isfinite(depth_map(own.to_world(points), self.camera)).astype(np.uint8)
        shared = int(np.count_nonzero(mask & other_mask))
        own_area, other_area = int(np.count_nonzero(mask)), int(np.count_nonzero(other_mask))
        if touching:
            fits = 0 < shared <= _MAX_TOUCH * min(own_area, other_area)
        else:
            fits = _OCCLUDED[0] <= shared / max(own_area if behind > 0 else other_area, 1) <= _OCCLUDED[1]
        if not fits:
            raise PlacementError
        return own

    def _on_top(self, model: UsableModel, yaw: float, host: int) -> PlacedModel:
        """Dropped on the level surface of its host."""
        other, support, points = self.objects[host], self.models[host].support, self._points[host]
        assert support is not None
        ratio = (model.length / self.models[host].length) ** 0.5
        scale = other.scale * float(np.clip(ratio * self.rng.uniform(0.8, 1.1), 0.3, 0.85))
        level = points[np.abs(points[:, 2] - support * other.scale - other.position[2]) < 0.02 * other.scale]
        if not len(level):
            raise PlacementError
        x, y, _ = (0.35 * level.mean(axis=0) + 0.65 * level[int(self.rng.integers(len(level)))]).tolist()
        return self._dropped(PlacedModel(model.entry, model.size, (x, y, 0.0), yaw, scale), model.points, host)

    def _inside(self, model: UsableModel, yaw: float, host: int) -> PlacedModel:
        """Dropped into the hollow of its host; it comes to rest below the rim."""
        other, cavity = self.objects[host], self.models[host].cavity
        assert cavity is not None
        unit = model.points
        radius = float(np.linalg.norm(unit[:, :2], axis=1).max())
        scale = float(self.rng.uniform(0.72, 1.0)) * cavity.radius * other.scale / radius
        c, s = math.cos(other.yaw) * other.scale, math.sin(other.yaw) * other.scale
        x = other.position[0] + c * cavity.x - s * cavity.y
        y = other.position[1] + s * cavity.x + c * cavity.y
        placed = self._dropped(PlacedModel(model.entry, model.size, (x, y, 0.0), yaw, scale), unit, host)
        rim = other.position[2] + cavity.rim * other.scale
        height = float(np.ptp(unit[:, 2])) * scale
        below = rim - placed.position[2]
        if below < 0.25 * min(height, cavity.depth * other.scale) or height < 0.6 * below:
            raise PlacementError
        return placed

    def _dropped(self, placed: PlacedModel, points: Array, host: int) -> PlacedModel:
        height, stable = drop(placed.to_world(points), self._points[: len(self.objects)])
        if not stable or height <= self.objects[host].position[2]:
            raise PlacementError
        resting = replace(placed, position=(*placed.position[:2], height))
        length = resting.scale * self.camera.focal / self.camera.depth(resting.position) / RASTER
        if length < 0.75 * _SHORTEST:
            raise PlacementError
        return resting

    def visible(self) -> list[Mask]:
        """Visible part of each object on the raster.

        Raises:
            PlacementError: an object is too small or hidden too much.
        """
        nearest = np.min(self._depths, axis=0)
        masks = []
        for depth in self._depths[: len(self.objects)]:
            mask = np.isfinite(depth) & (depth <= nearest)
            area = int(np.count_nonzero(mask))
            whole = np.isfinite(depth).view(np.uint8)
            _, _, width, height = cv2.boundingRect(whole)
            whole_area = int(np.count_nonzero(whole))
            lattice = whole_area < _MIN_FILLED * width * height
            if lattice or area < max(_MIN_AREA * RASTER**2, _MIN_VISIBLE * whole_area):
                raise PlacementError
            masks.append(mask)
        return masks

    def order(self) -> tuple[int, ...]:
        """Indices of the objects front to back; a container is in front of its content.

        Raises:
            PlacementError: two objects hide each other in about equal parts, or there is a circle.
        """
        count = len(self.objects)
        in_front = np.zeros((count, count), np.bool_)
        for a, b in combinations(range(count), 2):
            first = self._front_of(a, b)
            in_front[first, a + b - first] = True
        order: list[int] = []
        left = set(range(count))
        while left:
            free = [k for k in left if not any(in_front[other, k] for other in left if other != k)]
            if not free:
                raise PlacementError
            order.append(min(free))
            left.remove(order[-1])
        return tuple(order)

    def _front_of(self, a: int, b: int) -> int:
        shared = np.isfinite(self._depths[a]) & np.isfinite(self._depths[b])
        part = float(np.mean((self._depths[a] < self._depths[b])[shared])) if np.any(shared) else None
        for own, host in ((a, b), (b, a)):
            role = self.roles[own]
            if role.hosted and role.parent == host:
                if role.relation == "containing":
                    return host
                if part is None:
                    return own
                # The back of a chair may hide more of what stands on it than that hides of the chair.
                return a if part > 0.5 else b
        if part is not None:
            if 0.2 < part < 0.8:
                raise PlacementError
            return a if part > 0.5 else b
        return min((a, b), key=lambda k: self.camera.depth(self.objects[k].centre))

    def add_bystander(self, model: UsableModel, toward_lamp: tuple[float, float] | None) -> None:
        """Place a model of the background where it hides no object; nowhere, if there is no room.

        Args:
            model: which one.
            toward_lamp: unit vector (x, y) along which it stands from the middle of the ground, so that its shadow
                falls into the picture; None: anywhere.
        """
        length = self._length_beside(model, int(self.rng.integers(len(self.objects))), host=False)
        unit = model.points
        for _ in range(10):
            column, row = self.rng.uniform(-0.05, 1.05) * RASTER, self.rng.uniform(0.3, 1.02) * RASTER
            if self.camera.ray_directions(column, row)[2] > -0.05:
                continue
            x, y = self.camera.ground_point(column, row)
            if toward_lamp is not None:
                distance = float(self.rng.uniform(0.35, 0.8))
                jitter = self.rng.normal(0, 0.15, 2)
                x, y = toward_lamp[0] * distance + jitter[0], toward_lamp[1] * distance + jitter[1]
                toward_lamp = None
            placed = self._on_ground(model, float(self.rng.uniform(-math.pi, math.pi)), x, y, length)
            points = placed.to_world(unit)
            if self.camera.depth(placed.position) < 0.4 or not self._is_free(placed, points, None):
                continue
            depth = depth_map(points, self.camera)
            shown, nearest = np.isfinite(depth), np.min(self._depths, axis=0)
            if np.any(shown & np.isfinite(nearest) & (depth < nearest)):
                continue
            x0, y0, x1, y1 = outline_box(points[::4], self.camera)
            inside = max(min(x1, RASTER) - max(x0, 0), 0) * max(min(y1, RASTER) - max(y0, 0), 0)
            free = int(np.count_nonzero(shown & ~np.isfinite(nearest)))
            if inside > 0.4 * (x1 - x0) * (y1 - y0) and free > 0.35 * np.count_nonzero(shown):
                self._keep(placed, points, self.bystanders)
                return
