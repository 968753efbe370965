"""Palettes of each pool, as 0xRRGGBB, and tone mapping from linear light to 8-bit pictures.

No colour is in both pools.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import RGB
from pics_cli.core.scenes.drawn.camera import Array

Palette = tuple[int, int, int, int]

# Of objects: main, second, accent, inside of vessels.
OBJECT_PALETTES: dict[str, tuple[Palette, ...]] = {
    "train": (
        (0xC8553D, 0xF2E8DC, 0x588B8B, 0xF4EDE4),
        (0x2F6690, 0xE9EEF2, 0xD9A441, 0xEDF2F5),
        (0xE3B23C, 0x423E37, 0xA39594, 0xF5E9D0),
        (0x6A994E, 0xF2F0D8, 0xBC4749, 0xEFF1E0),
        (0xB56576, 0xEAAC8B, 0x6D597A, 0xF6E4DA),
        (0x264653, 0xE9C46A, 0xE76F51, 0xF1E7CF),
        (0xD8D2C6, 0x8A817C, 0x463F3A, 0xECE7DE),
        (0x9C6644, 0xE6CCB2, 0x7F5539, 0xEDE0D4),
        (0x3D5A80, 0x98C1D9, 0xEE6C4D, 0xE0F0F4),
        (0xA4243B, 0xD8C99B, 0x273E47, 0xF0E6CC),
        (0x7A9E9F, 0xEEF5DB, 0xFE5F55, 0xF0F5EA),
        (0xF4A259, 0xF7EDE2, 0x5B8E7D, 0xFAF0E4),
        (0x5E548E, 0xE0B1CB, 0x231942, 0xF0E0EA),
        (0x84A59D, 0xF6BD60, 0xF28482, 0xF7EEDC),
        (0x1D3557, 0xF1FAEE, 0xE63946, 0xEDF6F0),
        (0xEAE0D5, 0xC6AC8F, 0x5E503F, 0xF3ECE2),
    ),
    "held_out": (
        (0x0F7173, 0xF0F3F5, 0xE7ECEF, 0xE4EEEE),
        (0xD65780, 0xEFBCD5, 0x8661C1, 0xF7E6EE),
        (0x4B5842, 0xDDE1C4, 0x9DA993, 0xE8EAD8),
        (0xCC7722, 0xFFE5B4, 0x5C4033, 0xFBEBD0),
        (0x7FB7BE, 0xDACC3E, 0xBC2C1A, 0xE3F1F3),
        (0x4A4E69, 0xC9ADA7, 0x9A8C98, 0xEEE4E0),
        (0x9B2915, 0xE9B44C, 0x50A2A7, 0xF2E4C6),
        (0x8FBC94, 0x548687, 0xC5E99B, 0xE7F2E2),
        (0xDDBEA9, 0xCB997E, 0x6B705C, 0xFFE8D6),
        (0x33658A, 0x86BBD8, 0xF6AE2D, 0xE2EEF5),
    ),
}

# By family of ground: dark, middle, light tone.
GROUND_TONES: dict[str, dict[str, tuple[tuple[int, int, int], ...]]] = {
    "train": {
        "planks": ((0x6B4528, 0x9A6B42, 0xBF8F62), (0x8C6A48, 0xB8926A, 0xD8B891), (0x4A3224, 0x6E4D37, 0x8F6A4E)),
        "weave": ((0x6F7F92, 0x93A3B4, 0xB7C3CF), (0xC2B8A3, 0xDACFBB, 0xEFE7D8), (0x8E4F4B, 0xB06D66, 0xCB9089)),
        "stone": ((0x8D8B86, 0xC4C1BA, 0xE6E3DD), (0x3F4A4C, 0x66706F, 0x9CA5A2), (0xB79F86, 0xD8C5AF, 0xEDE0D1)),
        "matt": ((0xB8C0C4, 0xC9D0D3, 0xDADFE1), (0xC9A99A, 0xD8BBAD, 0xE6CEC2), (0x7D8F86, 0x93A59B, 0xAABAB1)),
        "tiles": ((0x9A9186, 0xCFC6B9, 0xE2DACE), (0x6B7C85, 0x9DB0B8, 0xBCCBD1), (0x8A5A44, 0xB7795C, 0xC9906F)),
        "lawn": ((0x3C5A24, 0x5E8136, 0x8DA851), (0x4A6A33, 0x78964A, 0xA9BC6B)),
        "carpet": ((0x58627A, 0x76809A, 0x99A2B8), (0x8A7A66, 0xA69580, 0xC4B5A0), (0x6E4A52, 0x8D646B, 0xAF868B)),
    },
    "held_out": {
        "concrete": ((0x86888A, 0xA5A7A8, 0xC3C5C5), (0x9A938B, 0xB7B0A7, 0xD2CCC4)),
        "bricks": ((0x77675B, 0x9F8A7B, 0xBCA697), (0x5F6B66, 0x87948E, 0xA9B4AF)),
        "linen": ((0x7C8B78, 0x9FAE9A, 0xC1CCBC), (0xB29A78, 0xCEB898, 0xE5D4BA)),
        "terrazzo": ((0x9B8E82, 0xDCD6CE, 0xEDE9E4), (0x5F7A85, 0xC3CBCC, 0xE0E4E3)),
        "sand": ((0xB59A70, 0xD0B78D, 0xE7D3AE), (0xA08C78, 0xBFAB96, 0xD9C9B6)),
    },
}

# Of backdrops: low and high colour.
WALL_COLORS: dict[str, tuple[tuple[int, int], ...]] = {
    "train": (
        (0xD9D2C7, 0xEDE8E0),
        (0x9FB4BD, 0xC9D6DB),
        (0xC7A78F, 0xE0CAB8),
        (0x6F8376, 0x9DB0A2),
        (0x4C5A6B, 0x77879A),
        (0xBFC3A8, 0xDEE0CB),
        (0xB48A86, 0xD7B4AE),
        (0x8E8579, 0xB9B0A3),
    ),
    "held_out": (
        (0xA7A3C2, 0xD2CFE2),
        (0x5A6D62, 0x8CA193),
        (0xD4B483, 0xEBD7B4),
        (0x7C9EB2, 0xB4CCD9),
        (0x6B5B5E, 0x9C8A8C),
        (0xC9CBC5, 0xE7E8E3),
    ),
}
SKY_COLORS: dict[str, tuple[tuple[int, int], ...]] = {
    "train": ((0xDCE8EE, 0x7FAFD4), (0xF1E6D6, 0x9DBBD0), (0xE8ECEC, 0xB4C4CE)),
    "held_out": ((0xF6D3B3, 0x8E9FC4), (0xE9DCE6, 0x7F93BE)),
}

# Linear light of each 8-bit value; gamma is 2. float32 [256].
LINEAR_LIGHT = ((np.arange(256, dtype=np.float32) / 255) ** 2).astype(np.float32)
# The brightest light that is shown without being compressed much; there is no hard white.
_SHOULDER = 1.25


def rgb(color: int) -> tuple[int, int, int]:
    """Red, green and blue of 0xRRGGBB, 0 to 255."""
    return color >> 16, color >> 8 & 255, color & 255


def linear_rgb(color: int) -> Array:
    """Linear light of a colour, float32 [3] in [0, 1]."""
    return LINEAR_LIGHT[list(rgb(color))]


def color_ramp(colors: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Colours blended evenly into one another, uint8 [256, 3]."""
    stops = np.linspace(0, 255, len(colors))
    channels = np.asarray([rgb(color) for color in colors], np.float64).T
    blended = np.stack([np.interp(np.arange(256), stops, channel) for channel in channels], axis=1)
    ramp: npt.NDArray[np.uint8] = np.rint(blended).astype(np.uint8)
    return ramp


def gray_to_rgb(values: Array) -> Array:
    """The same value in three channels: float32 [h, w] to [h, w, 3].

    Copied rather than broadcast: NumPy is slow where the last axis is that short.
    """
    return cv2.merge((values, values, values)).astype(np.float32, copy=False)


def tone_map(light: Array, grain: Array | None = None) -> RGB:
    """Linear light, float32 [h, w, 3], as a uint8 picture; `grain` is in 8-bit steps, of the same shape.

    x / sqrt(1 + (x / s)²) compresses highlights smoothly; its square root is the display's gamma.
    """
    tone = np.sqrt(light / np.sqrt(light * light * (1 / _SHOULDER**2) + 1))
    if grain is None:
        return cv2.convertScaleAbs(tone, alpha=255).astype(np.uint8, copy=False)
    # Where grain makes black negative, its absolute value is as good.
    return cv2.convertScaleAbs(tone * 255 + grain).astype(np.uint8, copy=False)
