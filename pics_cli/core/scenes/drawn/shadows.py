"""Light that objects block: soft shadows of the lamp, and ambient occlusion where surfaces are close.

N: number of points. An object's own frame has its longest side 1; `q` are points in it.
"""

from __future__ import annotations

import math

import numpy as np

from pics_cli.core.scenes.drawn.camera import Array, Indices, Vec, dot, dot_constant, saturate, take
from pics_cli.core.scenes.drawn.solids import ShadowProxy
from pics_cli.core.scenes.drawn.spec import Light, SceneObject

# Half width of the sharpest shadow edge, in lengths of the object that casts it.
_MIN_PENUMBRA = 0.012
# Distance over which a nearby surface blocks ambient light, likewise.
_OCCLUSION_RADIUS = 0.16


def shadow(obj: SceneObject, points: Vec, light: Light) -> Array:
    """Share of the lamp's light that an object blocks at world points: float32 [N] in [0, 1].

    The line from a point to the lamp meets a cross-section z = const of the object in one point. The share is how far
    that point is inside the cross-section, against the width of the lamp as seen from there. Points in a cavity are lit
    through its opening.
    """
    q = obj.to_local(points)
    to_lamp = obj.to_local_direction(light.direction)
    lamp_radius = light.angular_radius * math.sqrt(dot(to_lamp, to_lamp))
    result = np.zeros(np.shape(q[0]), np.float32)
    if not len(result):
        return result
    for proxy in obj.shape.shadow_proxies:
        near = _near_shadow(proxy, q, to_lamp, lamp_radius)
        if len(near):
            through = _through_discs if proxy.planes is None else _through_polyhedron
            hidden = through(proxy, take(q, near), to_lamp, lamp_radius)
            result[near] = np.maximum(result.take(near), hidden)
    if obj.shape.cavity is not None:
        inside = _in_cavity(obj, q)
        if len(inside):
            result[inside] = rim_shadow(take(q, inside), obj.shape.rim, to_lamp, lamp_radius)
    return result


def rim_shadow(q: Vec, rim: tuple[float, float], to_lamp: Vec, lamp_radius: float) -> Array:
    """Share of the lamp's light that a vessel's rim (height and radius) blocks at points in the cavity, float32 [N]."""
    t = (rim[0] - q[2]) / to_lamp[2]
    return _penumbra(rim[1] - _length(q[0] + t * to_lamp[0], q[1] + t * to_lamp[1]), t, -lamp_radius)


def _length(x: Array, y: Array) -> Array:
    length: Array = np.sqrt(x * x + y * y)
    return length


def _in_cavity(vessel: SceneObject, q: Vec) -> Indices:
    """Indices of the points that lie in a vessel's cavity."""
    cavity = vessel.shape.cavity
    assert cavity is not None
    max_radius = float(cavity[:, 1].max()) + 0.012
    r_squared = q[0] * q[0] + q[1] * q[1]
    # The lip around the opening is a little higher than the rim.
    maybe = (r_squared < max_radius * max_radius) & (q[2] < vessel.shape.height + 1e-3)
    maybe &= q[2] > float(cavity[0, 0]) - 0.02
    inside: Indices = maybe.nonzero()[0]
    if len(inside):
        radius = np.interp(q[2].take(inside), cavity[:, 0], cavity[:, 1]) + 0.012
        inside = inside[r_squared.take(inside) < radius * radius]
    return inside


def _near_shadow(proxy: ShadowProxy, q: Vec, to_lamp: Vec, lamp_radius: float) -> Indices:
    """Indices of the points whose line to the lamp comes near a proxy's bounding sphere."""
    x, y, z, radius = proxy.bounding_sphere
    length = math.sqrt(dot(to_lamp, to_lamp))
    offset = x - q[0], y - q[1], z - q[2]
    along = dot_constant(offset, (to_lamp[0] / length, to_lamp[1] / length, to_lamp[2] / length))
    reach = np.maximum(along, 0) * (lamp_radius / length) + (radius + _MIN_PENUMBRA)
    indices: Indices = ((along > -radius) & (dot(offset, offset) - along * along < reach * reach)).nonzero()[0]
    return indices


def _penumbra(depth: Array, t: Array, lamp_radius: float) -> Array:
    """Hidden part of the lamp where the line to it passes `depth` inside an edge at distance t.

    With a negative `lamp_radius` the part that is not hidden.
    """
    width = np.maximum(t, 0) * abs(lamp_radius) + _MIN_PENUMBRA
    return saturate(depth / width * math.copysign(0.5, lamp_radius) + 0.5)


def _through_discs(proxy: ShadowProxy, q: Vec, to_lamp: Vec, lamp_radius: float) -> Array:
    """Hidden part of the lamp for a round proxy: that of the disc which hides most."""
    ux, uy = to_lamp[0] / to_lamp[2], to_lamp[1] / to_lamp[2]
    widening = lamp_radius / to_lamp[2]
    # The line to the lamp at height 0, and at a disc's height from there.
    x0, y0 = q[0] - q[2] * ux, q[1] - q[2] * uy
    lowest = float(q[2].min())
    most = np.full(x0.shape, -1, np.float32)
    for z, x, y, r in proxy.discs.tolist():
        if z > lowest + 1e-4:
            depth = r - _length(x0 + (ux * z - x), y0 + (uy * z - y))
            rise = z - q[2]
            depth /= np.maximum(rise, 0) * widening + _MIN_PENUMBRA
            np.maximum(most, depth, out=most, where=rise > 1e-4)
    return np.minimum(most * 0.5 + 0.5, 1)


def _through_polyhedron(proxy: ShadowProxy, q: Vec, to_lamp: Vec, lamp_radius: float) -> Array:
    """Hidden part of the lamp by the line's length in a convex polyhedron; where negative, by how much it misses."""
    assert proxy.planes is not None
    entry = np.zeros(np.shape(q[0]), np.float32)
    exit_ = np.full(np.shape(q[0]), 1e6, np.float32)
    for nx, ny, nz, offset in proxy.planes.tolist():
        slope = nx * to_lamp[0] + ny * to_lamp[1] + nz * to_lamp[2]
        if abs(slope) < 1e-5:
            np.copyto(exit_, np.float32(-1e6), where=dot_constant(q, (nx, ny, nz)) > offset)
            continue
        t = dot_constant(q, (-nx / slope, -ny / slope, -nz / slope)) + offset / slope
        if slope < 0:
            np.maximum(entry, t, out=entry)
        else:
            np.minimum(exit_, t, out=exit_)
    return _penumbra((exit_ - entry) * (0.5 * math.sqrt(dot(to_lamp, to_lamp))), entry, lamp_radius)


def ambient_occlusion(obj: SceneObject, points: Vec) -> Array:
    """Share of the ambient light that an object blocks at world points outside it: float32 [N] in [0, 0.6]."""
    q = obj.to_local(points)
    nearest = np.full(np.shape(q[0]), 1e6, np.float32)
    hollow = obj.shape.cavity is not None
    for proxy in obj.shape.shadow_proxies:
        if proxy.planes is not None:
            distance = np.zeros(np.shape(q[0]), np.float32)
            for nx, ny, nz, offset in proxy.planes.tolist():
                np.maximum(distance, dot_constant(q, (nx, ny, nz)) - offset, out=distance)
            np.minimum(nearest, distance, out=nearest)
            continue
        for z, x, y, r in proxy.discs[::3].tolist():
            outside = _length(q[0] - x, q[1] - y) - r
            outside = np.abs(outside) if hollow else np.maximum(outside, 0)
            np.minimum(nearest, outside + np.abs(q[2] - z) * 0.8, out=nearest)
    nearest *= 1 / _OCCLUSION_RADIUS
    occlusion: Array = np.reciprocal(nearest * nearest + 1)
    if hollow:  # in it its walls are on all sides, the nearer the deeper
        inside = _in_cavity(obj, q)
        rim_height, rim_radius = obj.shape.rim
        depth = (rim_height - q[2].take(inside)) * (1 / rim_radius)
        occlusion[inside] = np.maximum(0.6 * occlusion.take(inside), np.minimum(np.maximum(depth, 0), 0.8))
    return occlusion * occlusion * 0.6
