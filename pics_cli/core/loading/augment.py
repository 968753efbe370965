"""Augmentation of references and boxes: objects mirrored, rotated in and out of their plane, in other light.

Everything goes by the object's own mask, never by colour: what is white in it stays, what is around it is white.
h, w: sides of an object's picture, R: reference size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from pics_cli.core.conditioning.network_inputs import REFERENCE_FRAME, prepare_reference
from pics_cli.core.images.cutouts import WHITE, cut_out, over_white, premultiply
from pics_cli.core.images.geometry import Box
from pics_cli.core.images.image_io import RGB, decode_image, encode_jpeg
from pics_cli.core.images.lighting import from_linear, to_linear
from pics_cli.core.images.masks import BoxMask
from pics_cli.core.loading.augment_geometry import RGBA, rotate_object
from pics_cli.core.recipes.training_sections import AugmentSettings
from pics_cli.errors import BadSample

# Colour temperature of a picture's white, in kelvin.
NEUTRAL = 5500.0
# Most references nearly fit their scene's light: theirs differs by this share of what the recipe allows.
_NEARLY = 0.12
# Logarithm of the factor on linear red, green and blue for each mired; their product leaves brightness as it is.
_WARMTH = np.array([0.0019, 0.0004, -0.0031])


class Reference(NamedTuple):
    """An object as the network gets it.

    Attributes:
        patch: uint8 [R, R, 3] on white, for the encoder.
        rgba: uint8 [h, w, 4], cropped to the object, not premultiplied, for control images that show it.
    """

    patch: RGB
    rgba: RGBA


class View(NamedTuple):
    """How an object is shown.

    Attributes:
        flip: mirrored left to right, before anything else.
        roll: degrees of rotation in the plane of the result, clockwise, after yaw and pitch.
        yaw, pitch: degrees of rotation out of its plane about its vertical, then about the horizontal axis.
        scale: side of the patch over the longer side of the object in it.
        brightness: added to its values, as a share of white.
        contrast: its values are stretched by 1 + contrast around their mean.
        exposure: stops by which its linear light is multiplied.
        warmth: change of the light's colour temperature in mired (a million over kelvin); above 0 it is redder.
    """

    flip: bool = False
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    scale: float = REFERENCE_FRAME
    brightness: float = 0.0
    contrast: float = 0.0
    exposure: float = 0.0
    warmth: float = 0.0


def cut_reference(rgb: RGB, mask: BoxMask) -> RGBA:
    """Cut an object out of its picture, uint8 [H, W, 3]: uint8 [h, w, 4], the mask's box with alpha 255 in the mask."""
    x0, y0, x1, y1 = mask.box
    rgba = cv2.cvtColor(rgb[y0:y1, x0:x1], cv2.COLOR_RGB2RGBA)  # several times faster than assigning three of four
    cv2.insertChannel(mask.pixels.view(np.uint8) * np.uint8(255), rgba, 3)
    return rgba.astype(np.uint8, copy=False)


def augment_reference(
    rgba: RGBA, augment: AugmentSettings, rng: np.random.Generator, size: int, *, detail: int = 0
) -> Reference:
    """An object in a view drawn at random; arguments and errors as those of `draw_view` and `render_view`."""
    view = draw_view(augment, rng)
    if rng.random() < augment.dirt:
        rgba = add_dirt(rgba, rng)
    return render_view(rgba, view, size, detail=detail)


def draw_view(augment: AugmentSettings, rng: np.random.Generator) -> View:
    """Draw a view within the recipe's limits. Each setting has its own draw: changing one does not change the others.

    The object is rotated out of its plane by `perspective` degrees at most in all: yaw and pitch lie in a circle.
    """
    flip, roll, tilt, direction, scale, brightness, contrast = rng.random(7).tolist()
    relit, exposure, temperature = rng.random(3).tolist()
    reach = 1.0 if relit < augment.relit else _NEARLY
    coldest, warmest = (1e6 / kelvin - 1e6 / NEUTRAL for kelvin in augment.temperature[::-1])
    tilt *= augment.perspective
    low, high = augment.scale
    return View(
        flip=flip < augment.flip,
        roll=augment.rotation * (2 * roll - 1),
        yaw=tilt * math.cos(2 * math.pi * direction),
        pitch=tilt * math.sin(2 * math.pi * direction),
        scale=low + (high - low) * scale,
        brightness=augment.brightness * (2 * brightness - 1),
        contrast=augment.contrast * (2 * contrast - 1),
        exposure=reach * augment.exposure * (2 * exposure - 1),
        warmth=reach * (coldest + (warmest - coldest) * temperature),
    )


def render_view(rgba: RGBA, view: View, size: int, *, detail: int = 0) -> Reference:
    """An object in a view.

    Not rotated, its patch is that of `prepare_reference` with `view.scale` as its frame, bit for bit, and `rgba` has
    the pixels it came with. Rotated, it is resampled once, premultiplied, shrunk by area where it shrinks, and lies in
    the middle with all of its rim: where that needs more room than `view.scale` leaves, it becomes as much smaller.

    Args:
        rgba: uint8 [h, w, 4], with any margin.
        view: how to show it.
        size: R.
        detail: longer side up to which a rotated `rgba` keeps its sharpness; otherwise it has that of the patch. For
            control images that show it: S.

    Raises:
        BadSample: `bad_reference` where it is wholly transparent, or too thin to be seen.
    """
    if not rgba[..., 3].any():
        raise BadSample("bad_reference", "the object's picture is wholly transparent")
    rgba = cut_out(rgba)
    if view.flip:
        rgba = cv2.flip(rgba, 1).astype(np.uint8, copy=False)
    if not (view.roll or view.yaw or view.pitch):
        rgba = _adjust_light(rgba, view)
        return Reference(prepare_reference(rgba, size, view.scale), rgba)
    angles = (view.yaw, view.pitch, view.roll)
    rotated = _unpremultiply(rotate_object(rgba, angles, scale=view.scale, size=size, detail=detail))
    rotated = _adjust_light(rotated, view)
    if not rotated[..., 3].any():
        raise BadSample("bad_reference", f"{rgba.shape[1]}x{rgba.shape[0]}: too thin to be seen at {size} pixels")
    patch = over_white(premultiply(rotated))
    if len(patch) > size:
        patch = cv2.resize(patch, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return Reference(patch, cut_out(rotated))


def grow_box(box: Box, augment: AugmentSettings, rng: np.random.Generator) -> Box:
    """A box with its sides grown about its middle, which may reach out of the picture."""
    low, high = augment.box_growth
    growth_x, growth_y = (low + (high - low) * rng.random(2) - 1) / 2
    x0, y0, x1, y1 = box
    dx, dy = round((x1 - x0) * growth_x), round((y1 - y0) * growth_y)
    return x0 - dx, y0 - dy, x1 + dx, y1 + dy


def _adjust_light(rgba: RGBA, view: View) -> RGBA:
    """Brightness and contrast, one mean for all channels, so that grey stays grey; then exposure and warmth."""
    if not (view.brightness or view.contrast or view.exposure or view.warmth):
        return rgba
    mean = np.mean(cv2.mean(rgba, cv2.extractChannel(rgba, 3))[:3])
    values = (np.arange(256) - mean) * (1 + view.contrast) + mean + WHITE * view.brightness
    linear = to_linear(np.clip(values, 0, WHITE) / WHITE)
    gains = 2**view.exposure * np.exp(view.warmth * _WARMTH)
    table = np.rint(WHITE * from_linear(np.clip(linear[:, None] * gains, 0, 1)))
    tables = np.concatenate([table, np.arange(256)[:, None]], axis=1).astype(np.uint8)
    return cv2.LUT(rgba, tables[:, None]).astype(np.uint8, copy=False)


def add_dirt(rgba: RGBA, rng: np.random.Generator) -> RGBA:
    """What photographs bring along, each part drawn: blur, grain, JPEG's blocks, an outline cut a little wrong.

    The picture is uint8 [h, w, 4], not premultiplied.
    """
    blur, grain, quality, rim = rng.random(4).tolist()
    rgb, alpha = np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3])
    if blur > 0.5:
        rgb = cv2.GaussianBlur(rgb, (0, 0), 2 * blur - 0.7).astype(np.uint8, copy=False)
    if grain > 0.3:
        noise = rng.standard_normal(rgb.shape, np.float32) * np.float32(8 * grain)
        rgb = np.clip(rgb + noise, 0, WHITE).astype(np.uint8)
    if quality > 0.3:
        rgb = decode_image(encode_jpeg(rgb, quality=round(100 - 60 * quality))).rgb
    if rim > 0.5:
        kernel = np.ones((3, 3), np.uint8)
        alpha = (cv2.erode if rng.random() < 0.5 else cv2.dilate)(alpha, kernel).astype(np.uint8, copy=False)
        alpha = cv2.GaussianBlur(alpha, (0, 0), 0.5 + rim).astype(np.uint8, copy=False)
    return np.dstack([rgb, alpha])


def _unpremultiply(rgba: RGBA) -> RGBA:
    """The inverse of `premultiply`; black where alpha is 0."""
    alpha = cv2.cvtColor(cv2.extractChannel(rgba, 3), cv2.COLOR_GRAY2RGBA)
    return cv2.divide(rgba, alpha, scale=WHITE).astype(np.uint8, copy=False)
