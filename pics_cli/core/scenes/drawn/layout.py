"""Places for a scene's objects: on the ground, on and in each other, hiding each other by a wanted part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from pics_cli.core.scenes.drawn.camera import Camera
from pics_cli.core.scenes.drawn.casting import Role, lineage
from pics_cli.core.scenes.drawn.layers import extent
from pics_cli.core.scenes.drawn.silhouettes import RASTER, Cover, apart, front_wall, silhouette
from pics_cli.core.scenes.drawn.spec import Thing

LEAST_AREA = 0.0165  # of the picture
LEAST_SEEN = 0.38  # of an object
HIDDEN = (0.115, 0.56)  # of an object that is occluded on purpose
WITHIN = (0.06, 0.58)  # of what a vessel holds, behind its front wall
BRUSHED = 0.03  # of an object that is touched on purpose
_TRIES = 5
# Apparent length of the longest side, as a part of the frame's side.
_LENGTHS = {"table": (0.42, 0.62), "plate": (0.36, 0.52), "book": (0.28, 0.42), "bottle": (0.28, 0.46)}
_VESSEL_LENGTHS = {"bowl": (0.36, 0.52), "cup": (0.3, 0.42)}
_OTHER_LENGTH = (0.21, 0.38)


class NoRoom(Exception):
    """The draw does not fit; the next one may."""


class Layout:
    """Objects placed so far, their silhouettes on the raster, and who is in front.

    Args:
        camera: of the raster.
        wall: y where the ground ends.
        roles: of all objects.
    """

    def __init__(self, camera: Camera, wall: float, roles: Sequence[Role], rng: np.random.Generator) -> None:
        self.camera, self.wall, self.roles, self.rng = camera, wall, roles, rng
        self.things: list[Thing] = []
        self.outlines: list[Cover] = []

    def add(self, thing: Thing) -> None:
        """Place the next object.

        Raises:
            NoRoom: it does not fit.
        """
        role = self.roles[len(self.things)]
        for _ in range(_TRIES):
            try:
                placed, outline = self._hosted(thing, role) if role.hosted else self._on_ground(thing, role)
            except NoRoom:
                continue
            x0, y0, x1, y1 = extent(placed, self.camera)
            inside = min(x0, y0) > -0.008 * RASTER and max(x1, y1) < 1.008 * RASTER
            if inside and (role.hosted or self._free(placed)):
                self.things.append(placed)
                self.outlines.append(outline)
                return
        raise NoRoom

    def _free(self, placed: Thing) -> bool:
        """Whether the ground under a thing is free, but for a brush with its neighbours."""
        foot = placed.foot()
        if float(foot[:, 1].max()) > self.wall - 0.02:
            return False
        others = [thing for thing, role in zip(self.things, self.roles, strict=False) if not role.hosted]
        return all(apart(foot, o.foot(), self.camera.eye, -0.04 * min(o.scale, placed.scale)) for o in others)

    def _hosted(self, thing: Thing, role: Role) -> tuple[Thing, Cover]:
        assert role.parent is not None
        host = self.things[role.parent]
        if role.relation == "supporting":
            placed = self._upon(thing, host)
            return placed, silhouette(placed, self.camera)
        placed = self._inside(thing, host)
        outline = silhouette(placed, self.camera)
        wall = front_wall(host, self.outlines[role.parent], self.camera)
        hidden = int(np.count_nonzero(outline & wall)) / max(int(np.count_nonzero(outline)), 1)
        if not WITHIN[0] <= hidden <= WITHIN[1]:
            raise NoRoom
        return placed, outline

    def _length(self, thing: Thing, role: Role) -> float:
        """World length per depth unit that gives an object a suitable size in the picture."""
        table = _VESSEL_LENGTHS if role.holds else _LENGTHS
        low, high = table.get(thing.category, _OTHER_LENGTH)
        crowd = (1.12, 1.0, 0.88, 0.8)[len(self.roles) - 1]
        return float(self.rng.uniform(low, high)) * (1.0 if role.holds or role.carries else crowd)

    def _at(self, thing: Thing, x: float, y: float, length: float | None) -> Thing:
        """On the ground at world x, y; `length` in the picture, or as it is."""
        if length is not None:
            depth = float(self.camera.project(np.asarray([[x, y, 0.0]]))[0, 2])
            thing = replace(thing, scale=length * RASTER * depth / self.camera.focal)
        return replace(thing, position=(x, y, 0.0))

    def _somewhere(self, thing: Thing, length: float) -> Thing:
        """On the ground, its foot in the middle and lower part of the picture, wholly inside."""
        for _ in range(12):
            column, row = self.rng.uniform(0.14, 0.86) * RASTER, self.rng.uniform(0.42, 0.95) * RASTER
            x, y = self.camera.ground(column, row)
            placed = self._at(thing, x, y, length)
            x0, y0, x1, y1 = extent(placed, self.camera)
            spare = 0.2 * (y1 - y0) if self.roles[len(self.things)].carries else 0
            if min(x0, y0 - spare) > 1 and max(x1, y1) < RASTER - 1 and y + placed.scale * 0.3 < self.wall:
                return placed
        raise NoRoom

    def _on_ground(self, thing: Thing, role: Role) -> tuple[Thing, Cover]:
        length = self._length(thing, role)
        if role.parent is None:
            placed = self._somewhere(thing, length)
            return placed, silhouette(placed, self.camera)
        parent = self.things[role.parent]
        if role.relation == "apart":
            for _ in range(6):
                placed = self._somewhere(thing, length)
                outline = silhouette(placed, self.camera)
                # Three pixels of the smallest picture are twelve here.
                around = cv2.dilate(self.outlines[role.parent], np.ones((25, 25), np.uint8))
                if not np.any(outline[around > 0]):
                    return placed, outline
            raise NoRoom
        touching = role.relation == "touching"
        here = self._at(thing, parent.position[0], parent.position[1], length)
        radii = self._radius(parent) + self._radius(here)
        if touching:
            away = float(self.rng.uniform(-0.5, 0.5)) * radii
        else:
            away = float(self.rng.choice((-1, 1))) * radii * float(self.rng.uniform(0.75, 1.3))
        here = self._at(thing, parent.position[0], parent.position[1] + away, length)
        outline = silhouette(here, self.camera)
        other = self.outlines[role.parent]
        back = outline if away > 0 else other
        target = 0.5 * BRUSHED * float(self.rng.random()) if touching else float(self.rng.uniform(0.15, 0.5))
        wanted = target * max(int(np.count_nonzero(back)), 1)
        depth = float(self.camera.project(np.asarray([here.position]))[0, 2])
        sign = 1 if self.rng.random() < 0.5 else -1
        for _ in range(2):  # moving it changes its perspective a little, so the second step corrects the first
            shift = self._shift(outline, other, wanted, sign)
            here = self._at(thing, here.position[0] + shift * depth / self.camera.focal, here.position[1], length)
            outline = silhouette(here, self.camera)
        shared = int(np.count_nonzero(outline & other))
        if touching:
            least = min(int(np.count_nonzero(outline)), int(np.count_nonzero(other)))
            if not 0 < shared <= BRUSHED * least:
                raise NoRoom
        elif not HIDDEN[0] <= shared / max(int(np.count_nonzero(outline if away > 0 else other)), 1) <= HIDDEN[1]:
            raise NoRoom
        return here, outline

    def _radius(self, thing: Thing) -> float:
        foot = thing.foot() - np.asarray(thing.position[:2])
        return float(np.abs(foot[:, 1]).max())

    def _shift(self, outline: Cover, other: Cover, wanted: float, sign: int) -> int:
        """By how many pixels to move `outline` sideways so that it shares about `wanted` pixels with the other one,
        coming from the right (sign 1) or the left (-1)."""
        width = RASTER
        x, _, across, _ = cv2.boundingRect(other)
        u, _, along, _ = cv2.boundingRect(outline)
        first = (x + across - u) if sign > 0 else (x - u - along)  # side by side
        low, high = 0, max(across, along)
        while high - low > 1:
            step = (low + high) // 2
            moved = first - sign * step
            a, b = max(moved, 0), min(width + moved, width)
            shared = np.count_nonzero(other[:, a:b] & outline[:, a - moved : b - moved]) if b > a else 0
            if shared > wanted:
                high = step
            else:
                low = step
        return first - sign * high

    def _upon(self, thing: Thing, host: Thing) -> Thing:
        """Standing on the host's top."""
        top = host.shape.top
        assert top is not None
        height, half_x, half_y = (value * host.scale for value in top)
        foot = float(np.linalg.norm(thing.shape.foot, axis=1).max())
        depth = float(self.camera.project(np.asarray([host.position]))[0, 2])
        length = float(self.rng.uniform(0.2, 0.34)) * RASTER * depth / self.camera.focal
        scale = min(length, 0.96 * min(half_x, half_y) / foot)
        room_x, room_y = max(half_x - foot * scale, 0), max(half_y - foot * scale, 0)
        x, y = float(self.rng.uniform(-1, 1)) * room_x * 0.9, float(self.rng.uniform(-1, 1)) * room_y * 0.9
        c, s = math.cos(host.yaw), math.sin(host.yaw)
        px, py, pz = host.position
        return replace(thing, position=(px + c * x - s * y, py + s * x + c * y, pz + height), scale=scale)

    def _inside(self, thing: Thing, host: Thing) -> Thing:
        """In the hollow of the host, as low as its walls let it be."""
        cavity = host.shape.cavity
        assert cavity is not None
        walls = cavity[:, :2].astype(np.float64) * host.scale
        rim_z, rim_r = walls[-1].tolist()
        at = np.linspace(0, thing.shape.height, 24)
        radii = thing.shape.radius_at(at)
        scale = float(self.rng.uniform(0.5, 0.93)) * rim_r / float(radii.max())
        if thing.shape.height * scale < 0.5 * rim_z:
            raise NoRoom
        for z in np.linspace(walls[0, 0], rim_z, 14):
            heights = z + at * scale
            below = heights < rim_z
            if (radii * scale <= np.interp(heights, walls[:, 0], walls[:, 1]) + 0.004 * host.scale)[below].all():
                px, py, pz = host.position
                return replace(thing, position=(px, py, pz + float(z)), scale=scale)
        raise NoRoom

    def order(self) -> tuple[int, ...]:
        """Indices front to back: what stands on something is in front of it, a vessel in front of its content."""
        roots = [k for k in range(len(self.things)) if lineage(self.roles, k) == k]
        wins = {k: sum(self._before(k, i) for i in roots if i != k) for k in roots}
        order: list[int] = []
        for root in sorted(roots, key=lambda k: (-wins[k], k)):
            order += self._stack(root)
        return tuple(order)

    def _before(self, a: int, b: int) -> bool:
        return apart(self.things[a].foot(), self.things[b].foot(), self.camera.eye) > 0

    def _stack(self, k: int) -> list[int]:
        guests = [i for i, role in enumerate(self.roles) if role.hosted and role.parent == k]
        above = [j for i in guests for j in self._stack(i)]
        return [k, *above] if self.roles[k].holds else [*above, k]

    def visible(self, order: Sequence[int]) -> list[Cover]:
        """Visible part of each object on the raster, for an order from front to back.

        Raises:
            NoRoom: one of them is too small or too much hidden.
        """
        shown: list[Cover] = [outline.copy() for outline in self.outlines]
        free = np.ones((RASTER, RASTER), np.uint8)
        for k in order:
            outline = self.outlines[k]
            if self.roles[k].holds:
                wall = front_wall(self.things[k], outline, self.camera)
                content = next(
                    i for i, role in enumerate(self.roles) if role.parent == k and role.relation == "containing"
                )
                outline = outline & (1 - (self.outlines[content] & (1 - wall)))
            shown[k] = outline & free
            free &= 1 - shown[k]
            seen = int(np.count_nonzero(shown[k]))
            if seen < LEAST_AREA * RASTER**2 or seen < LEAST_SEEN * np.count_nonzero(self.outlines[k]):
                raise NoRoom
        return shown
