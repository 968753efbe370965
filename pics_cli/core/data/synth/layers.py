"""One object drawn: colour, coverage and depth in its own part of the picture. N: number of rays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pics_cli.core.data.pictures import RGB
from pics_cli.core.data.synth.camera import Array, Camera, Rays, Vec, spin
from pics_cli.core.data.synth.light import lit
from pics_cli.core.data.synth.palettes import LINEAR, linear
from pics_cli.core.data.synth.patterns import texture
from pics_cli.core.data.synth.rounded import Lump
from pics_cli.core.data.synth.silhouettes import Cover, silhouette
from pics_cli.core.data.synth.solids import ACCENT, FAR, INSIDE, Faces
from pics_cli.core.data.synth.spec import Light, Thing

# Where in a pixel an edge is sampled: no two samples share a row or a column.
_SAMPLES = np.asarray([(i + 0.5, j + 0.5) for i, j in enumerate((1, 3, 0, 2))], np.float32) / 4
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True)
class Layer:
    """An object in a window of the picture.

    Attributes:
        x, y: the window's first pixel.
        rgb: float32 [h, w, 3], linear light times coverage.
        cover: float32 [h, w] in [0, 1].
        depth: float32 [h, w], of the nearest surface; FAR where there is none.
    """

    x: int
    y: int
    rgb: Array
    cover: Array
    depth: Array

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture."""
        return slice(self.y, self.y + self.cover.shape[0]), slice(self.x, self.x + self.cover.shape[1])


def extent(thing: Thing, camera: Camera) -> tuple[float, float, float, float]:
    """Box of a whole object in pixels, x0, y0, x1, y1, not clipped."""
    points = camera.project(thing.outward_points(thing.shape.points))
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def paper(thing: Thing, pool: str, pixels: float) -> RGB:
    """Texture of a thing that is about `pixels` wide in the picture, no finer than can be seen."""
    size = 128 if pixels < 64 else 192 if pixels < 110 else 256 if pixels < 180 else 512
    return texture(pool, thing.look.pattern, thing.look.palette, thing.look.seed, size)


def draw(
    thing: Thing, others: Sequence[Thing], camera: Camera, light: Light, tissue: RGB, width: int, height: int
) -> Layer:
    """Draw one object, shaded by the others but not hidden by them.

    Args:
        thing: what to draw.
        others: what may throw shadows on it.
        camera, light: of the picture.
        tissue: texture of its main slot.
        width, height: of the picture; nothing is drawn outside.
    """
    low_x, low_y, high_x, high_y = extent(thing, camera)
    margin = 2 + 0.02 * max(high_x - low_x, high_y - low_y)
    x0, y0 = max(int(low_x - margin), 0), max(int(low_y - margin), 0)
    x1, y1 = min(int(high_x + margin) + 1, width), min(int(high_y + margin) + 1, height)
    columns, rows = max(x1 - x0, 1), max(y1 - y0, 1)
    near = np.flatnonzero(_worth_casting(thing, camera, (x0, y0, columns, rows)))
    xs, ys = (near % columns + x0).astype(np.float32), (near // columns + y0).astype(np.float32)
    centre = ys + 0.5
    t, key, solid, face = _cast(thing, camera, xs + 0.5, centre, centre)
    keys = np.zeros((rows, columns), np.int16)
    keys.ravel()[near] = key
    edge = (cv2.dilate(keys, _CROSS) != cv2.erode(keys, _CROSS)).ravel()[near]
    inner = np.flatnonzero(~edge & (key > 0))
    border = np.flatnonzero(edge)
    count = len(_SAMPLES)
    fine_x = (xs[border, None] + _SAMPLES[:, 0]).ravel()
    fine_y = (ys[border, None] + _SAMPLES[:, 1]).ravel()
    fine_t, fine_key, fine_solid, fine_face = _cast(thing, camera, fine_x, fine_y, np.repeat(centre[border], count))
    # Where an edge pixel shows one patch only, one of its samples tells the colour of all.
    grouped = fine_key.reshape(-1, count)
    hit = grouped > 0
    most = grouped.max(axis=1, initial=0)
    single = (np.where(hit, grouped, most[:, None]).min(axis=1, initial=32767) == most) & (most > 0)
    first = np.flatnonzero(single) * count + hit[single].argmax(axis=1)
    rest = np.flatnonzero((hit & ~single[:, None]).ravel())
    some = np.concatenate([first, rest])

    colours = _shade(
        thing,
        others,
        camera,
        light,
        tissue,
        np.concatenate([xs[inner] + 0.5, fine_x[some]]),
        np.concatenate([ys[inner] + 0.5, fine_y[some]]),
        np.concatenate([t[inner], fine_t[some]]),
        np.concatenate([solid[inner], fine_solid[some]]),
        np.concatenate([face[inner], fine_face[some]]),
    )
    rgb = np.zeros((rows * columns, 3), np.float32)
    cover = np.zeros(rows * columns, np.float32)
    depth = np.full(rows * columns, FAR, np.float32)
    pixel = near[inner]
    rgb[pixel], cover[pixel], depth[pixel] = colours[: len(inner)], 1, t[inner]
    pixel = near[border]
    share = hit.mean(axis=1, dtype=np.float32)
    cover[pixel] = share
    depth[pixel] = fine_t.reshape(-1, count).min(axis=1, initial=FAR)
    rgb[pixel[single]] = colours[len(inner) : len(inner) + len(first)] * share[single, None]
    samples = np.zeros((len(fine_x), 3), np.float32)
    samples[rest] = colours[len(inner) + len(first) :]
    mixed = ~single
    rgb[pixel[mixed]] = samples.reshape(-1, count, 3)[mixed].mean(axis=1)
    return Layer(x0, y0, rgb.reshape(rows, columns, 3), cover.reshape(rows, columns), depth.reshape(rows, columns))


def _worth_casting(thing: Thing, camera: Camera, window: tuple[int, int, int, int]) -> Cover:
    """Pixels of a window in or near the silhouette, uint8 [h, w]; all of it for soft shapes, whose outline is rough."""
    if any(isinstance(solid, Lump) for solid in thing.shape.solids):
        return np.ones((window[3], window[2]), np.uint8)
    slack = 2 + max(window[2:]) // 90  # circles are polygons there
    return cv2.dilate(silhouette(thing, camera, window), np.ones((2 * slack + 1,) * 2, np.uint8)).astype(
        np.uint8, copy=False
    )


def _cast(thing: Thing, camera: Camera, x: Array, y: Array, row: Array) -> tuple[Array, Faces, Faces, Faces]:
    """Depth, smooth patch (0: nothing met), solid and face along the rays through pixel coordinates, [N] each; `row` is
    the y of each pixel's centre, never falling."""
    dx, dy, dz = thing.inward_direction(camera.rays(x, y))
    ox, oy, oz = (float(c) for c in thing.inward(camera.eye))
    away = spin((0.0, 1.0, 0.0), -thing.yaw)
    middle = camera.rays(0.0, row)
    rays = Rays((ox, oy, oz), (dx, dy, dz), -middle[2] / middle[1], 2.5 / camera.focal, (away[0], away[1]))
    best = np.full(x.shape, FAR, np.float32)
    key = np.zeros(x.shape, np.int16)
    which = np.zeros(x.shape, np.int16)
    face = np.zeros(x.shape, np.int16)
    patches = 1
    for number, solid in enumerate(thing.shape.solids):
        t, f = solid.trace(rays)
        nearer = t < best
        if number == 0:
            best, face = t, f
            key = np.where(nearer, solid.patch[f] + np.int16(1), np.int16(0))
        else:
            at = np.flatnonzero(nearer)
            best[at], face[at], which[at] = t[at], f[at], number
            key[at] = solid.patch[f[at]] + patches
        patches += int(solid.patch.max()) + 1
    return best, key, which, face


def _shade(
    thing: Thing,
    others: Sequence[Thing],
    camera: Camera,
    light: Light,
    tissue: RGB,
    x: Array,
    y: Array,
    t: Array,
    solid: Faces,
    face: Faces,
) -> Array:
    """Light from met points, linear: float32 [N, 3]."""
    d = camera.rays(x, y)
    p: Vec = tuple((o + t * c).astype(np.float32) for o, c in zip(camera.eye, d, strict=True))
    q = thing.inward(p)
    normals = np.empty((3, len(t)), np.float32)
    u, v = np.empty(len(t), np.float32), np.empty(len(t), np.float32)
    slot = np.empty(len(t), np.int16)
    for number, part in enumerate(thing.shape.solids):
        at = np.flatnonzero(solid == number) if len(thing.shape.solids) > 1 else slice(None)
        n, u[at], v[at] = part.surface(face[at], (q[0][at], q[1][at], q[2][at]))
        for axis in range(3):
            normals[axis, at] = n[axis]
        slot[at] = part.slot[face[at]]
    n = spin((normals[0], normals[1], normals[2]), thing.yaw)
    albedo = cv2.LUT(sample(tissue, u, v)[None], LINEAR)[0]
    for number, colour in ((ACCENT, thing.look.palette[2]), (INSIDE, thing.look.palette[3])):
        albedo[slot == number] = linear(colour)
    return lit(thing, others, p, n, camera.eye, (albedo[:, 0], albedo[:, 1], albedo[:, 2]), slot, light)


def sample(tissue: RGB, u: Array, v: Array) -> RGB:
    """Colours of a texture at coordinates that wrap around: uint8 [N, 3]."""
    count, across = len(u), 256
    padded = -(-max(count, 1) // across) * across
    flat = np.zeros((2, padded), np.float32)
    flat[0, :count] = (u - np.floor(u)) * np.float32(tissue.shape[1]) - 0.5
    flat[1, :count] = (v - np.floor(v)) * np.float32(tissue.shape[0]) - 0.5
    maps = flat.reshape(2, -1, across)
    found = cv2.remap(tissue, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return found.reshape(-1, 3)[:count].astype(np.uint8, copy=False)
