"""A plan as scenes of Mitsuba: meshes, lamp, panorama and camera in, linear pictures, alpha and masks out.

The variant `scalar_rgb` computes on one core and compiles nothing; scenes run side by side in processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import mitsuba as mi
import numpy as np
import numpy.typing as npt
import pyoidn

from pics_cli.core.scenes.drawn.camera import Camera
from pics_cli.core.scenes.rendered.lights import SceneLight, load_hdri
from pics_cli.core.scenes.rendered.models import Part, load_model
from pics_cli.core.scenes.rendered.placement import PlacedModel
from pics_cli.core.scenes.rendered.spec import Surface
from pics_cli.core.scenes.rendered.textures import surface_texture

mi.set_variant("scalar_rgb")

MAX_DEPTH = 4
# The lamp is a disk so far away that its light is nearly parallel.
_LAMP_DISTANCE = 40.0
_GROUND_REACH = 30.0
_WALL_HEIGHT = 12.0

Array = npt.NDArray[np.float32]
Shapes = dict[str, Any]


def model_shapes(placed: PlacedModel, prefix: str) -> Shapes:
    """Meshes of a model, one for each of its materials."""
    shapes: Shapes = {}
    for number, part in enumerate(load_model(placed.entry).parts):
        c, s = math.cos(placed.yaw), math.sin(placed.yaw)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)
        name = f"{prefix}_{number}"
        shapes[name] = _mesh(name, placed.to_world(part.positions), part.normals @ turn.T, part.uv, _part_bsdf(part))
    return shapes


def surface_shapes(ground: Surface, wall: Surface | None, wall_distance: float) -> Shapes:
    """The ground, and the wall where it ends."""
    far, wide = wall_distance, _GROUND_REACH
    corners = np.array([[-wide, -wide, 0], [wide, -wide, 0], [wide, far, 0], [-wide, far, 0]], np.float32)
    shapes = {"ground": _quad("ground", corners, corners[:, :2], (0, 0, 1), ground)}
    if wall is not None:
        corners = np.array(
            [[-wide, far, 0], [wide, far, 0], [wide, far, _WALL_HEIGHT], [-wide, far, _WALL_HEIGHT]], np.float32
        )
        flat = np.column_stack([corners[:, 0], corners[:, 2]])
        shapes["wall"] = _quad("wall", corners, flat, (0, -1, 0), wall)
    return shapes


def light_shapes(lighting: SceneLight) -> Shapes:
    """Panorama and lamp; together they light open ground with an irradiance of 1."""
    share = lighting.lamp.strength
    sky = load_hdri(lighting.hdri) * np.asarray(lighting.ambient_color, np.float32) * np.float32(1 - share)
    transform = mi.ScalarTransform4f
    emitters: Shapes = {
        "sky": {
            "type": "envmap",
            "bitmap": mi.Bitmap(np.ascontiguousarray(sky, np.float32)),
            "to_world": transform().rotate([0, 0, 1], lighting.hdri_turn).rotate([1, 0, 0], 90),
        }
    }
    if share > 0.005:
        direction = np.asarray(lighting.direction)
        radius = math.radians(lighting.lamp.radius)
        radiance = share / (math.pi * math.sin(radius) ** 2 * float(direction[2]))
        place = (
            transform()
            .look_at(origin=(direction * _LAMP_DISTANCE).tolist(), target=[0, 0, 0], up=[0.01, 0.02, 1])
            .scale(_LAMP_DISTANCE * math.tan(radius))
        )
        emitters["lamp"] = {
            "type": "disk",
            "to_world": place,
            "emitter": {"type": "area", "radiance": _rgb([radiance * value for value in lighting.lamp_color])},
        }
    return emitters


@dataclass(frozen=True)
class Guides:
    """What the denoiser and the masks need of a view.

    Attributes:
        albedo, normal: float32 [S, S, 3].
        shapes: name of each shape, and
        index: which of them each sample of a pixel meets, counted from 1, 0 being the sky: [n S, n S].
    """

    albedo: Array
    normal: Array
    shapes: tuple[str, ...]
    index: npt.NDArray[np.int64]

    def shares(self, groups: Sequence[str]) -> list[Array]:
        """For each group of shapes, by the beginning of their names, its part of each pixel: float32 [S, S]."""
        side = len(self.albedo)
        samples = len(self.index) // side
        shares = []
        for group in groups:
            own = np.array([False, *(name.startswith(f"{group}_") for name in self.shapes)])
            covered = own[self.index].reshape(side, samples, side, samples)
            shares.append(covered.mean(axis=(1, 3), dtype=np.float32))
        return shares


def render_guides(shapes: Mapping[str, Any], camera: Camera, size: int, seed: int, samples: int = 1) -> Guides:
    """Albedo, normals and owners of a view's pixels.

    Args:
        shapes: what is seen.
        camera: of the picture.
        size: S.
        seed: of the samples.
        samples: of a pixel, along each side.
    """
    scene = mi.load_dict({"type": "scene", **shapes})
    # A sample's cost is the integrator's own, however many values it gives, so there is one for everything.
    integrator = {"type": "aov", "aovs": "albedo:albedo,normal:sh_normal,index:shape_index"}
    pixels = _render(scene, integrator, camera.scaled(samples), samples * size, 1, seed)
    albedo, normal = (
        cv2.resize(pixels[..., k : k + 3], (size, size), interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
        for k in (-7, -4)
    )
    index = np.rint(pixels[..., -1]).astype(np.int64)
    return Guides(albedo, normal, tuple(str(shape.id()) for shape in scene.shapes()), index)


def render_coverage(shapes: Mapping[str, Any], camera: Camera, size: int, seed: int) -> Array:
    """Part of each pixel that shapes take if nothing hides them: float32 [S, S]."""
    scene = mi.load_dict({"type": "scene", **shapes})
    return _render(scene, {"type": "depth"}, camera, size, 9, seed)[..., 3]


def render_linear(
    shapes: Mapping[str, Any], lighting: SceneLight, camera: Camera, guides: Guides, samples: int, seed: int,
    hide_sky: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """Path-traced and denoised picture in linear light, float32 [S, S, 3], and its alpha [S, S].

    Args:
        shapes: what is seen.
        lighting: what lights it.
        camera: of the picture.
        guides: of the same view.
        samples: paths per pixel.
        seed: of the paths.
        hide_sky: the panorama lights the scene and is not seen; alpha is 0 there, and colour multiplied by alpha.
    """
    # Blocks draw their random numbers on their own, so that in two pictures of one seed those are equal from which
    # nothing is seen of what differs.
    integrator = {"type": "path", "max_depth": MAX_DEPTH, "hide_emitters": hide_sky, "block_size": 8}
    scene = mi.load_dict({"type": "scene", **shapes, **light_shapes(lighting)})
    pixels = _render(scene, integrator, camera, len(guides.albedo), samples, seed)
    color = _without_fireflies(pixels[..., :3])
    picture: Array = pyoidn.denoise(color, albedo=np.clip(guides.albedo, 0, 1), normal=guides.normal, hdr=True)
    return np.maximum(picture, 0), np.clip(pixels[..., 3], 0, 1)


def _render(scene: Any, integrator: dict[str, Any], camera: Camera, size: int, samples: int, seed: int) -> Array:
    forward = (0.0, math.cos(camera.pitch), -math.sin(camera.pitch))
    target = [e + f for e, f in zip(camera.eye, forward, strict=True)]
    sensor = mi.load_dict(
        {
            "type": "perspective",
            "fov": math.degrees(2 * math.atan(size / 2 / camera.focal)),
            "fov_axis": "x",
            "near_clip": 0.01,
            "far_clip": 1000.0,
            "principal_point_offset_x": 0.5 - camera.principal_point[0] / size,
            "principal_point_offset_y": 0.5 - camera.principal_point[1] / size,
            "to_world": mi.ScalarTransform4f().look_at(origin=list(camera.eye), target=target, up=[0, 0, 1]),
            "film": {
                "type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgba", "component_format": "float32",
                "rfilter": {"type": "box"},
            },
            "sampler": {"type": "independent", "sample_count": samples},
        }
    )  # fmt: skip
    pixels: Array = np.array(
        mi.render(scene, sensor=sensor, integrator=mi.load_dict(integrator), spp=samples, seed=mi.UInt32(seed))
    )
    return pixels


def _without_fireflies(color: Array) -> Array:
    """A picture whose single bright pixels are cut to five times the brightest of their neighbourhood's median."""
    color = np.nan_to_num(color, posinf=0, neginf=0)
    luminance = np.ascontiguousarray(color.max(axis=2))
    limit = 5 * cv2.medianBlur(luminance, 5) + np.float32(0.05)
    cut = np.minimum(1, limit / np.maximum(luminance, 1e-6))
    limited: Array = np.ascontiguousarray(color * cut[..., None], np.float32)
    return limited


def _mesh(name: str, positions: Array, normals: Array, uv: Array | None, bsdf: dict[str, Any]) -> Any:
    properties = mi.Properties()
    properties["bsdf"] = mi.load_dict(bsdf)
    count = len(positions)
    mesh = mi.Mesh(
        name, count, count // 3, props=properties, has_vertex_normals=True, has_vertex_texcoords=uv is not None
    )
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = np.ascontiguousarray(positions, np.float32).ravel()
    parameters["vertex_normals"] = np.ascontiguousarray(normals, np.float32).ravel()
    if uv is not None:
        flipped = np.column_stack([uv[:, 0], 1 - uv[:, 1]])  # rows of a texture count from the top
        parameters["vertex_texcoords"] = np.ascontiguousarray(flipped, np.float32).ravel()
    parameters["faces"] = np.arange(count, dtype=np.uint32)
    parameters.update()
    mesh.set_id(name)
    return mesh


def _quad(name: str, corners: Array, flat: Array, normal: tuple[int, int, int], surface: Surface) -> Any:
    angle = math.radians(surface.turn)
    c, s = math.cos(angle) / surface.side, math.sin(angle) / surface.side
    uv = flat @ np.array([[c, -s], [s, c]], np.float32).T
    if name == "wall":  # the photograph stands on the ground, its middle in the middle
        uv = uv + np.array([0.5, 0], np.float32)
    index = [0, 1, 2, 0, 2, 3]
    texture = {
        "type": "bitmap", "bitmap": mi.Bitmap(surface_texture(surface)), "raw": True, "wrap_mode": "mirror",
    }  # fmt: skip
    bsdf = _twosided({"type": "principled", "base_color": texture, "roughness": surface.roughness, "specular": 0.4})
    normals = np.tile(np.asarray(normal, np.float32), (6, 1))
    return _mesh(name, corners[index], normals, uv[index].astype(np.float32), bsdf)


def _part_bsdf(part: Part) -> dict[str, Any]:
    color: dict[str, Any]
    linear = [value**2.2 for value in part.color]
    if part.texture is None:
        color = _rgb(linear)
    else:
        texture = (np.maximum(part.texture.astype(np.float32), 4) / 255) ** 2.2 * np.asarray(linear, np.float32)
        color = {
            "type": "bitmap", "raw": True, "wrap_mode": "repeat",
            "bitmap": mi.Bitmap(np.ascontiguousarray(np.clip(texture, 0, 0.9), np.float32)),
        }  # fmt: skip
    return _twosided(
        {
            "type": "principled",
            "base_color": color,
            "roughness": float(np.clip(part.roughness, 0.15, 1)),
            "metallic": 0.9 if part.metal else 0.0,
            "specular": 0.5,
        }
    )


def _twosided(bsdf: dict[str, Any]) -> dict[str, Any]:
    return {"type": "twosided", "bsdf": bsdf}


def _rgb(values: Sequence[float]) -> dict[str, Any]:
    return {"type": "rgb", "value": [float(value) for value in values]}
