"""One object drawn: colour, coverage and depth in its own part of the picture. N: number of rays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import RGB
from pics_cli.core.scenes.drawn.camera import Array, Camera, Point, Rays, Vec, spin
from pics_cli.core.scenes.drawn.colors import LINEAR, linear
from pics_cli.core.scenes.drawn.light import Points, lit
from pics_cli.core.scenes.drawn.patterns import texture
from pics_cli.core.scenes.drawn.rounded import Lump
from pics_cli.core.scenes.drawn.silhouettes import Cover, pixels, silhouette
from pics_cli.core.scenes.drawn.solids import ACCENT, FAR, INSIDE, Faces
from pics_cli.core.scenes.drawn.spec import Light, Thing

# Where in a pixel an edge is sampled: no two samples share a row or a column. The thin rims of hollow things need more.
FEW, MANY = (
    np.asarray([(i + 0.5, j + 0.5) for i, j in enumerate(columns)], np.float32) / len(columns)
    for columns in ((1, 3, 0, 2), (1, 4, 7, 2, 5, 0, 3, 6))
)


def patches(keys: Faces) -> tuple[npt.NDArray[np.intp], Array]:
    """One sample of each patch that each edge pixel shows, and the part of the pixel that the patch covers.

    Args:
        keys: patch of each sample, 0 for none, int16 [E, samples].

    Returns:
        Indices into all samples, by pixels, and float32 of their number.
    """
    # Key and number of each sample in one integer: sorted, the samples of a patch stand together.
    count = keys.shape[1]
    ranked = keys * np.int16(count)
    ranked += np.arange(count, dtype=np.int16)
    ranked.sort(axis=1)
    order = (ranked & (count - 1)).ravel()
    ranked //= np.int16(count)
    starts = np.ones(keys.shape, np.bool_)
    np.not_equal(ranked[:, 1:], ranked[:, :-1], out=starts[:, 1:])
    first = starts.ravel().nonzero()[0]
    counts = np.empty_like(first)
    np.subtract(first[1:], first[:-1], out=counts[:-1])
    counts[-1:] = keys.size - first[-1:]
    hit = ranked.ravel().take(first).nonzero()[0]
    first, counts = first.take(hit), counts.take(hit)
    # The middle one of its samples stands for a patch.
    some = first - first % count + order.take(first + counts // 2)
    return some, counts.astype(np.float32) * np.float32(1 / count)


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
    x, y = pixels(thing, camera)
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


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
    view = _View.of(thing, camera, y0, rows)
    worth = _worth_casting(thing, camera, (x0, y0, columns, rows))
    near = worth.ravel().nonzero()[0]
    counts = cv2.reduce(worth, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel().astype(np.intp)
    row = np.repeat(np.arange(rows), counts)
    xs, ys = (near - row * columns + x0).astype(np.float32), (row + y0).astype(np.float32)
    mid_x, mid_y = xs + np.float32(0.5), ys + np.float32(0.5)
    t, key, solid, face = view.cast(mid_x, mid_y, counts)
    keys = np.zeros((rows, columns), np.int16)
    keys.ravel()[near] = key
    bounds = (cv2.dilate(keys, _CROSS) != cv2.erode(keys, _CROSS)).ravel()
    edge = bounds.take(near)
    border = edge.nonzero()[0]
    np.logical_or(edge, key == 0, out=edge)
    inner = np.logical_not(edge, out=edge).nonzero()[0]
    samples = FEW if thing.shape.cavity is None else MANY
    count = len(samples)
    counts = np.count_nonzero(bounds.reshape(rows, columns) & (worth > 0), axis=1) * count
    fine_x = (xs.take(border)[:, None] + samples[:, 0]).ravel()
    fine_y = (ys.take(border)[:, None] + samples[:, 1]).ravel()
    fine_t, fine_key, fine_solid, fine_face = view.cast(fine_x, fine_y, counts)
    # Of each patch that an edge pixel shows, one sample tells the colour.
    some, share = patches(fine_key.reshape(-1, count))
    colours = _shade(
        thing,
        others,
        view,
        light,
        tissue,
        *(
            np.concatenate([coarse.take(inner), fine.take(some)])
            for coarse, fine in ((mid_x, fine_x), (mid_y, fine_y), (t, fine_t), (solid, fine_solid), (face, fine_face))
        ),
    )
    # Four channels: NumPy moves them about as one number of 16 bytes, several times as fast as three.
    rgba = np.zeros(rows * columns, np.complex128)
    pixel = near.take(inner)
    rgba[pixel] = colours[: len(inner)].view(np.complex128)[:, 0]
    depth = np.full(rows * columns, FAR, np.float32)
    depth[pixel] = t.take(inner)
    if len(some):
        pixel = near.take(border)
        depth[pixel] = fine_t.reshape(-1, count).min(axis=1)
        parts = colours[len(inner) :]
        parts *= share[:, None]
        owner = some // count
        first = np.append(0, (owner[1:] != owner[:-1]).nonzero()[0] + 1)
        rgba[pixel.take(owner.take(first))] = np.add.reduceat(parts, first, axis=0).view(np.complex128)[:, 0]
    window = rgba.view(np.float32).reshape(rows, columns, 4)
    return Layer(
        x0,
        y0,
        cv2.cvtColor(window, cv2.COLOR_RGBA2RGB).astype(np.float32, copy=False),
        cv2.extractChannel(window, 3).astype(np.float32, copy=False),
        depth.reshape(rows, columns),
    )


def _worth_casting(thing: Thing, camera: Camera, window: tuple[int, int, int, int]) -> Cover:
    """Pixels of a window in or near the silhouette, uint8 [h, w]; all of it for soft shapes, whose outline is rough."""
    if any(isinstance(solid, Lump) for solid in thing.shape.solids):
        return np.ones((window[3], window[2]), np.uint8)
    slack = 2 + max(window[2:]) // 90  # circles are polygons there
    return cv2.dilate(silhouette(thing, camera, window), np.ones((2 * slack + 1,) * 2, np.uint8)).astype(
        np.uint8, copy=False
    )


@dataclass(frozen=True)
class _View:
    """How a camera sees a thing's own frame.

    Attributes:
        thing, camera: which.
        o: where the camera is.
        ahead, right, down: the ray through pixel coordinates x, y goes along ahead + x right + y down.
        falls: see `Rays`; of the rows of pixels of a window.
    """

    thing: Thing
    camera: Camera
    o: Point
    ahead: Point
    right: Point
    down: Point
    falls: list[float]

    @staticmethod
    def of(thing: Thing, camera: Camera, first: int, rows: int) -> _View:
        """For a window of `rows` rows of pixels from the row `first` on."""
        start, right, down = (
            thing.inward_direction(camera.rays(x, y)) for x, y in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
        )
        o = thing.inward(camera.eye)
        _, forward, rise = camera.rays(0.0, np.arange(rows) + (first + 0.5))
        return _View(
            thing,
            camera,
            (float(o[0]), float(o[1]), float(o[2])),
            start,
            (right[0] - start[0], right[1] - start[1], 0.0),
            (down[0] - start[0], down[1] - start[1], down[2] - start[2]),
            (-rise / forward).tolist(),
        )

    def directions(self, x: Array, y: Array) -> Vec:
        """Of the rays through pixel coordinates, float32 [N]."""
        dx = y * self.down[0]
        dx += self.ahead[0]
        dx += x * self.right[0]
        dy = y * self.down[1]
        dy += self.ahead[1]
        dy += x * self.right[1]
        dz = y * self.down[2]
        dz += self.ahead[2]
        return dx, dy, dz

    def cast(self, x: Array, y: Array, counts: npt.NDArray[np.intp]) -> tuple[Array, Faces, Faces, Faces]:
        """Depth, smooth patch (0: nothing met), solid and face along the rays through pixel coordinates, [N] each;
        `counts` tells how many of them there are in each of the window's rows."""
        away = spin((0.0, 1.0, 0.0), -self.thing.yaw)
        starts = [0, *np.cumsum(counts).tolist()]
        rays = Rays(self.o, self.directions(x, y), self.falls, starts, 2.5 / self.camera.focal, (away[0], away[1]))
        which = np.zeros(x.shape, np.int16)
        patches = 1
        for number, solid in enumerate(self.thing.shape.solids):
            t, f = solid.trace(rays)
            if number == 0:
                best, face = t, f
                key = (solid.patch + np.int16(1)).take(f)
                key[t >= FAR] = 0
            else:
                at = (t < best).nonzero()[0]
                f = f.take(at)
                best[at], face[at], which[at] = t.take(at), f, number
                key[at] = solid.patch.take(f) + np.int16(patches)
            patches += int(solid.patch.max()) + 1
        return best, key, which, face


def _shade(
    thing: Thing,
    others: Sequence[Thing],
    view: _View,
    light: Light,
    tissue: RGB,
    x: Array,
    y: Array,
    t: Array,
    solid: Faces,
    face: Faces,
) -> Array:
    """Light from met points, linear, and 1: float32 [N, 4]."""
    d = view.directions(x, y)
    q: Vec = tuple(t * c for c in d)
    for coordinate, o in zip(q, view.o, strict=True):
        np.add(coordinate, o, out=coordinate)
    solids = thing.shape.solids
    if len(solids) == 1:
        n, u, v = solids[0].surface(face, q)
        slot = solids[0].slot.take(face)
    else:
        normals = np.empty((3, len(t)), np.float32)
        u, v = np.empty(len(t), np.float32), np.empty(len(t), np.float32)
        slot = np.empty(len(t), np.int16)
        for number, part in enumerate(solids):
            at = (solid == number).nonzero()[0]
            if not len(at):
                continue
            own = face.take(at)
            n, u[at], v[at] = part.surface(own, (q[0].take(at), q[1].take(at), q[2].take(at)))
            for axis in range(3):
                normals[axis, at] = n[axis]
            slot[at] = part.slot.take(own)
        n = (normals[0], normals[1], normals[2])
    albedo = cv2.LUT(sample(tissue, u, v)[None], LINEAR)[0]
    for number, colour in ((ACCENT, thing.look.palette[2]), (INSIDE, thing.look.palette[3])):
        at = (slot == number).nonzero()[0]
        if len(at):
            albedo.view(np.complex128)[at] = np.append(linear(colour), np.float32(1)).view(np.complex128)
    return lit(thing, others, Points(q, d, n, slot), albedo, light)


def sample(tissue: RGB, u: Array, v: Array) -> npt.NDArray[np.uint8]:
    """Colours of a texture at coordinates that wrap around, and 255: uint8 [N, 4]."""
    count, across = len(u), 256
    padded = -(-max(count, 1) // across) * across
    flat = np.zeros((2, padded), np.float32)
    np.multiply(u, np.float32(tissue.shape[1]), out=flat[0, :count])
    np.multiply(v, np.float32(tissue.shape[0]), out=flat[1, :count])
    flat -= np.float32(0.5)
    maps = flat.reshape(2, -1, across)
    four = cv2.cvtColor(tissue, cv2.COLOR_RGB2RGBA)
    found = cv2.remap(four, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return found.reshape(-1, 4)[:count].astype(np.uint8, copy=False)
