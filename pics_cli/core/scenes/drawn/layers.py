"""Ray casting of one object: colour, coverage and depth in its own window of the picture. N: number of rays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import RGB
from pics_cli.core.scenes.drawn.camera import Array, Camera, Indices, Point, Rays, Vec, rotate_z, take
from pics_cli.core.scenes.drawn.colors import LINEAR_LIGHT, linear_rgb
from pics_cli.core.scenes.drawn.patterns import texture
from pics_cli.core.scenes.drawn.shading import SurfacePoints, shade
from pics_cli.core.scenes.drawn.silhouettes import Silhouette, longest_side, projected_box, silhouette
from pics_cli.core.scenes.drawn.solids import ACCENT, FAR, INSIDE, Faces
from pics_cli.core.scenes.drawn.spec import Light, SceneObject
from pics_cli.core.scenes.drawn.spheres import Metaballs

# Where in an edge pixel rays are cast: no two share a row or a column. The thin rims of vessels need more.
_FOUR_SAMPLES, _EIGHT_SAMPLES = (
    np.asarray([(i + 0.5, j + 0.5) for i, j in enumerate(columns)], np.float32) / len(columns)
    for columns in ((1, 3, 0, 2), (1, 4, 7, 2, 5, 0, 3, 6))
)
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True)
class Layer:
    """An object in a window of the picture.

    Attributes:
        x, y: the window's first pixel.
        rgb: float32 [h, w, 3], linear light, premultiplied by alpha.
        alpha: coverage, float32 [h, w] in [0, 1].
        depth: of the nearest surface, float32 [h, w]; FAR where there is none.
    """

    x: int
    y: int
    rgb: Array
    alpha: Array
    depth: Array

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture."""
        return slice(self.y, self.y + self.alpha.shape[0]), slice(self.x, self.x + self.alpha.shape[1])


@dataclass(frozen=True)
class _Hits:
    """First hits of rays.

    Attributes:
        x, y: pixel coordinates that the rays go through, float32 [N].
        t: depth, float32 [N]; FAR where nothing is hit.
        group: 1 + smoothing group, numbered over all solids, int16 [N]; 0 where nothing is hit.
        solid, face: int16 [N].
    """

    x: Array
    y: Array
    t: Array
    group: Faces
    solid: Faces
    face: Faces


def object_texture(obj: SceneObject, pool: str, pixels: float) -> RGB:
    """Texture of an object that is about `pixels` wide in the picture, no finer than can be seen."""
    size = 128 if pixels < 64 else 192 if pixels < 110 else 256 if pixels < 180 else 512
    material = obj.material
    return texture(pool, material.pattern, material.palette, material.seed, size)


def draw_object(
    obj: SceneObject,
    others: Sequence[SceneObject],
    camera: Camera,
    light: Light,
    main_texture: RGB,
    width: int,
    height: int,
) -> Layer:
    """Draw one object, shaded by the others but not hidden by them.

    One ray is cast through the middle of each pixel; pixels on edges between smoothing groups get several, and one ray
    of each group is shaded there.

    Args:
        obj: what to draw.
        others: what may throw shadows on it.
        camera, light: of the picture.
        main_texture: of the material's main slot.
        width, height: of the picture; nothing is drawn outside.
    """
    box = projected_box(obj, camera)
    margin = 2 + 0.02 * longest_side(box)
    x0, y0 = max(int(box[0] - margin), 0), max(int(box[1] - margin), 0)
    x1, y1 = min(int(box[2] + margin) + 1, width), min(int(box[3] + margin) + 1, height)
    columns, rows = max(x1 - x0, 1), max(y1 - y0, 1)
    caster = _RayCaster.of_window(obj, camera, y0, rows)

    candidates = _candidate_pixels(obj, camera, (x0, y0, columns, rows))
    pixels = candidates.ravel().nonzero()[0]
    counts = cv2.reduce(candidates, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel().astype(np.intp)
    row = np.repeat(np.arange(rows), counts)
    x, y = (pixels - row * columns + x0).astype(np.float32), (row + y0).astype(np.float32)
    coarse = caster.cast(x + np.float32(0.5), y + np.float32(0.5), counts)

    groups = np.zeros((rows, columns), np.int16)
    groups.ravel()[pixels] = coarse.group
    edges = cv2.dilate(groups, _CROSS) != cv2.erode(groups, _CROSS)
    is_edge = edges.ravel().take(pixels)
    border = is_edge.nonzero()[0]
    inner = (~(is_edge | (coarse.group == 0))).nonzero()[0]

    offsets = _FOUR_SAMPLES if obj.shape.cavity is None else _EIGHT_SAMPLES
    samples = len(offsets)
    counts = np.count_nonzero(edges & (candidates > 0), axis=1) * samples
    fine = caster.cast(
        (x.take(border)[:, None] + offsets[:, 0]).ravel(), (y.take(border)[:, None] + offsets[:, 1]).ravel(), counts
    )
    chosen, coverage = group_samples(fine.group.reshape(-1, samples))
    colors = _shade_hits(obj, others, caster, light, main_texture, ((coarse, inner), (fine, chosen)))

    # A pixel's four channels are moved as one complex number of 16 bytes: several times as fast in NumPy.
    rgba = np.zeros(rows * columns, np.complex128)
    depth = np.full(rows * columns, FAR, np.float32)
    inner_pixels = pixels.take(inner)
    rgba[inner_pixels] = colors[: len(inner)].view(np.complex128)[:, 0]
    depth[inner_pixels] = coarse.t.take(inner)
    if len(chosen):
        border_pixels = pixels.take(border)
        depth[border_pixels] = fine.t.reshape(-1, samples).min(axis=1)
        parts = colors[len(inner) :]
        parts *= coverage[:, None]
        owner = chosen // samples
        first = np.append(0, (owner[1:] != owner[:-1]).nonzero()[0] + 1)
        rgba[border_pixels.take(owner.take(first))] = np.add.reduceat(parts, first, axis=0).view(np.complex128)[:, 0]
    window = rgba.view(np.float32).reshape(rows, columns, 4)
    rgb = cv2.cvtColor(window, cv2.COLOR_RGBA2RGB).astype(np.float32, copy=False)
    alpha = cv2.extractChannel(window, 3).astype(np.float32, copy=False)
    return Layer(x0, y0, rgb, alpha, depth.reshape(rows, columns))


def _candidate_pixels(obj: SceneObject, camera: Camera, window: tuple[int, int, int, int]) -> Silhouette:
    """Pixels of a window in or near the silhouette, uint8 [h, w]; all for metaballs, whose silhouette is inexact."""
    if any(isinstance(solid, Metaballs) for solid in obj.shape.solids):
        return np.ones((window[3], window[2]), np.uint8)
    margin = 2 + max(window[2:]) // 90  # circles are polygons there
    kernel = np.ones((2 * margin + 1,) * 2, np.uint8)
    return cv2.dilate(silhouette(obj, camera, window), kernel).astype(np.uint8, copy=False)


def group_samples(groups: Faces) -> tuple[Indices, Array]:
    """One sample of each smoothing group that an edge pixel shows, and the part of the pixel that the group covers.

    Args:
        groups: of each sample, 0 for none, int16 [E, samples].

    Returns:
        Indices into all samples, by pixels, and float32 of their number.
    """
    # Group and number of each sample in one integer: sorted, the samples of a group stand together.
    count = groups.shape[1]
    ranked = groups * np.int16(count)
    ranked += np.arange(count, dtype=np.int16)
    ranked.sort(axis=1)
    order = (ranked & (count - 1)).ravel()
    ranked //= np.int16(count)
    starts = np.ones(groups.shape, np.bool_)
    np.not_equal(ranked[:, 1:], ranked[:, :-1], out=starts[:, 1:])
    first = starts.ravel().nonzero()[0]
    counts = np.diff(first, append=groups.size)
    hit = ranked.ravel().take(first).nonzero()[0]
    first, counts = first.take(hit), counts.take(hit)
    # The middle one of its samples stands for a group.
    chosen = first - first % count + order.take(first + counts // 2)
    return chosen, counts.astype(np.float32) * np.float32(1 / count)


@dataclass(frozen=True)
class _RayCaster:
    """A camera's rays in an object's own frame.

    Attributes:
        obj, camera: the object and the camera.
        origin: the camera's position in the object's frame.
        ahead, right, down: the ray through pixel coordinates x, y goes along ahead + x right + y down.
        row_descents: see `Rays`; of the rows of a window.
    """

    obj: SceneObject
    camera: Camera
    origin: Point
    ahead: Point
    right: Point
    down: Point
    row_descents: list[float]

    @classmethod
    def of_window(cls, obj: SceneObject, camera: Camera, first_row: int, rows: int) -> _RayCaster:
        """For a window of `rows` pixel rows from `first_row` on."""
        ahead, right, down = (
            obj.to_local_direction(camera.ray_directions(x, y)) for x, y in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
        )
        ox, oy, oz = (float(c) for c in obj.to_local(camera.eye))
        _, forward, rise = camera.ray_directions(0.0, np.arange(rows) + (first_row + 0.5))
        return cls(
            obj,
            camera,
            (ox, oy, oz),
            ahead,
            (right[0] - ahead[0], right[1] - ahead[1], 0.0),
            (down[0] - ahead[0], down[1] - ahead[1], down[2] - ahead[2]),
            (-rise / forward).tolist(),
        )

    def directions(self, x: Array, y: Array) -> Vec:
        """Of the rays through pixel coordinates, float32 [N]."""
        dx, dy, dz = (y * down + ahead for down, ahead in zip(self.down, self.ahead, strict=True))
        return dx + x * self.right[0], dy + x * self.right[1], dz

    def cast(self, x: Array, y: Array, counts: Indices) -> _Hits:
        """Cast the rays through pixel coordinates, [N] each, sorted by rows.

        Args:
            counts: how many of them there are in each of the window's rows.
        """
        forward = rotate_z((0.0, 1.0, 0.0), -self.obj.yaw)
        starts = [0, *np.cumsum(counts).tolist()]
        tolerance = 2.5 / self.camera.focal
        rays = Rays(self.origin, self.directions(x, y), self.row_descents, starts, tolerance, (forward[0], forward[1]))
        solid = np.zeros(x.shape, np.int16)
        groups = 1
        for number, part in enumerate(self.obj.shape.solids):
            part_t, part_face = part.intersect(rays)
            if number == 0:
                t, face = part_t, part_face
                group = (part.smooth_group + np.int16(1)).take(face)
                group[t >= FAR] = 0
            else:
                nearer = (part_t < t).nonzero()[0]
                part_face = part_face.take(nearer)
                t[nearer], face[nearer], solid[nearer] = part_t.take(nearer), part_face, number
                group[nearer] = part.smooth_group.take(part_face) + np.int16(groups)
            groups += int(part.smooth_group.max()) + 1
        return _Hits(x, y, t, group, solid, face)


def _shade_hits(
    obj: SceneObject,
    others: Sequence[SceneObject],
    caster: _RayCaster,
    light: Light,
    main_texture: RGB,
    selected: Sequence[tuple[_Hits, Indices]],
) -> Array:
    """Linear light from selected hits, and 1: float32 [N, 4]."""
    x, y, t, solid, face = (
        np.concatenate([getattr(hits, name).take(indices) for hits, indices in selected])
        for name in ("x", "y", "t", "solid", "face")
    )
    directions = caster.directions(x, y)
    positions: Vec = tuple(t * d + o for d, o in zip(directions, caster.origin, strict=True))
    solids = obj.shape.solids
    if len(solids) == 1:
        normals, u, v = solids[0].surface(face, positions)
        slot = solids[0].slot.take(face)
    else:
        nx, ny, nz = np.empty((3, len(t)), np.float32)
        normals = (nx, ny, nz)
        u, v, slot = np.empty(len(t), np.float32), np.empty(len(t), np.float32), np.empty(len(t), np.int16)
        for number, part in enumerate(solids):
            own = (solid == number).nonzero()[0]
            if len(own):
                own_face = face.take(own)
                own_normals, u[own], v[own] = part.surface(own_face, take(positions, own))
                for normal, own_normal in zip(normals, own_normals, strict=True):
                    normal[own] = own_normal
                slot[own] = part.slot.take(own_face)
    albedo = cv2.LUT(sample_texture(main_texture, u, v)[None], LINEAR_LIGHT)[0]
    for number, color in ((ACCENT, obj.material.palette[2]), (INSIDE, obj.material.palette[3])):
        own = (slot == number).nonzero()[0]
        if len(own):
            albedo.view(np.complex128)[own] = np.append(linear_rgb(color), np.float32(1)).view(np.complex128)
    return shade(obj, others, SurfacePoints(positions, directions, normals, slot), albedo, light)


def sample_texture(image: RGB, u: Array, v: Array) -> npt.NDArray[np.uint8]:
    """Colours of a texture, interpolated, at coordinates that wrap around, and 255: uint8 [N, 4]."""
    # OpenCV wants maps of two dimensions.
    count, columns = len(u), 256
    padded = -(-max(count, 1) // columns) * columns
    maps = np.zeros((2, padded), np.float32)
    np.multiply(u, np.float32(image.shape[1]), out=maps[0, :count])
    np.multiply(v, np.float32(image.shape[0]), out=maps[1, :count])
    maps -= np.float32(0.5)
    map_x, map_y = maps.reshape(2, -1, columns)
    rgba = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    colors = cv2.remap(rgba, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return colors.reshape(-1, 4)[:count].astype(np.uint8, copy=False)
