"""Objects on plain backgrounds, drawn with known alpha, cut out again."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pics_cli.core.images.image_io import decode_image
from pics_cli.core.images.matting import rgba_from_mask, rim_width
from pics_cli.core.images.plain_background import background_mask, find_plain_background

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
SIDE, FINE = 240, 8  # shapes are drawn so many times as large and shrunk


def disc(x: float, y: float, radius: float) -> Floats:
    """Exact coverage of a disc, float32 [SIDE, SIDE] in 0..1."""
    big = np.zeros((SIDE * FINE, SIDE * FINE), np.float32)
    cv2.circle(big, (round(x * FINE), round(y * FINE)), round(radius * FINE), 1, -1)
    return cv2.resize(big, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Floats:
    alpha = np.zeros((SIDE, SIDE), np.float32)
    alpha[y0:y1, x0:x1] = 1
    return alpha


MUG = np.maximum(rectangle(60, 60, 150, 190), disc(155, 125, 45) - disc(155, 125, 28) * rectangle(150, 0, 240, 240))
HANDLE_HOLE = disc(155, 125, 28) * rectangle(150, 0, 240, 240)


def ground(colour: tuple[float, float, float] | float, fall: float = 0) -> Floats:
    """A plain background, float32 [SIDE, SIDE, 3], darker by `fall` from corner to corner."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    return (np.ones((SIDE, SIDE, 3)) * np.array(colour, np.float32) - fall * ((x + y) / 2)[..., None]).astype(
        np.float32
    )


def texture(colour: tuple[int, int, int], seed: int = 0) -> Floats:
    """An object's colours, float32 [SIDE, SIDE, 3], slowly varying."""
    noise = np.random.default_rng(seed).normal(0, 14, (12, 12, 3)).astype(np.float32)
    return np.array(colour, np.float32) + cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def picture(alpha: Floats, own: Floats, behind: Floats, quality: int | None = None, noise: float = 0) -> Bytes:
    mixed = alpha[..., None] * own + (1 - alpha[..., None]) * behind
    mixed += np.random.default_rng(1).normal(0, noise, mixed.shape) if noise else 0
    rgb = np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)
    return rgb if quality is None else decode_image(jpeg(rgb, quality)).rgb


def jpeg(rgb: Bytes, quality: int) -> bytes:
    return cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def cut(rgb: Bytes) -> Bytes:
    background = find_plain_background(rgb)
    assert background is not None
    mask = ~background_mask(rgb, background)
    return rgba_from_mask(rgb, mask, (0.5, rim_width(background.distance(rgb), mask)), background.colours)


def iou(rgba: Bytes, alpha: Floats) -> float:
    ours, true = rgba[..., 3] >= 128, alpha >= 0.5
    return float((ours & true).sum() / (ours | true).sum())


BACKGROUNDS = {
    "white": dict(behind=ground(255)),
    "off-white": dict(behind=ground(246)),
    "warm grey": dict(behind=ground((214, 208, 198))),
    "uneven": dict(behind=ground(240, fall=40)),
    "green": dict(behind=ground((60, 170, 80))),
    "black": dict(behind=ground(6)),
    "off-white JPEG": dict(behind=ground(246), quality=75),
    "uneven grainy JPEG": dict(behind=ground((232, 228, 220), fall=25), quality=85, noise=1.5),
}


@pytest.mark.parametrize("name", BACKGROUNDS)
@pytest.mark.parametrize("blur", [0.0, 2.0])
def test_alpha_and_colours_are_found_again(name: str, blur: float) -> None:
    """The mean error of alpha in the rim, that of the object's colours, and the outline."""
    alpha, own = MUG, texture((150, 70, 60))
    if blur:
        alpha = cv2.GaussianBlur(alpha, (0, 0), blur).astype(np.float32)
    rgba = cut(picture(alpha, own, **BACKGROUNDS[name]))  # type: ignore[arg-type]
    assert iou(rgba, alpha) > 0.985
    error = np.abs(rgba[..., 3] / 255 - alpha)
    rim = (alpha > 0.02) & (alpha < 0.98)
    assert error[rim].mean() < (0.06 if "JPEG" not in name else 0.12)
    assert error[~rim].mean() < 0.002
    # Over another colour it looks as the object itself would: no halo.
    over = lambda part, colours: part[..., None] * colours + (1 - part[..., None]) * np.array((30, 60, 200), np.float32)  # noqa: E731
    shown, wanted = over(rgba[..., 3] / 255, rgba[..., :3].astype(np.float32)), over(alpha, own)
    assert np.abs(shown - wanted)[rim].mean() < (10 if "JPEG" not in name else 16)
    assert np.median(rgba[..., 3][HANDLE_HOLE > 0.99]) == 0


@pytest.mark.parametrize(("level", "quality"), [(255, None), (246, None), (246, 80)])
def test_a_label_an_eye_and_a_highlight_stay(level: int, quality: int | None) -> None:
    own = texture((150, 70, 60))
    mug = rectangle(50, 40, 190, 210)
    for label, softness in ((rectangle(85, 100, 155, 160), 0), (disc(80, 70, 8), 0), (disc(110, 125, 16), 6)):
        part = cv2.GaussianBlur(label, (0, 0), softness) if softness else label
        printed = own + part[..., None] * (level - own) * (1.0 if not softness else 1.3)
        rgba = cut(picture(mug, np.minimum(printed, level), ground(level), quality))
        assert rgba[..., 3][(mug > 0) & (label > 0)].min() == 255
        assert iou(rgba, mug) > 0.99


def test_a_label_of_nearly_the_background_s_colour_stays() -> None:
    """Two levels beside the background, in a ring that would else be a handle."""
    ring = disc(120, 120, 90)
    own = np.where(disc(120, 120, 70)[..., None] > 0.5, np.float32(243), texture((150, 70, 60)))
    rgba = cut(picture(ring, own, ground(246)))
    assert rgba[120, 120, 3] == 255
    hollow = ring - disc(120, 120, 70)
    assert cut(picture(hollow, texture((150, 70, 60)), ground(246)))[120, 120, 3] == 0


def test_print_on_a_white_sign_keeps_it_whole() -> None:
    own = np.where(disc(120, 120, 70)[..., None] > 0.5, np.float32(255), texture((150, 70, 60)))
    own[110:130, 90:150] = 20
    rgba = cut(picture(disc(120, 120, 90), own, ground(255)))
    assert rgba[..., 3][disc(120, 120, 88) > 0.99].min() == 255


def test_a_soft_shadow_goes_and_a_pale_object_stays() -> None:
    shadow = cv2.GaussianBlur(np.roll(MUG, 12, 0), (0, 0), 9)[..., None]
    rgba = cut(picture(MUG, texture((150, 70, 60)), ground(250) * (1 - 0.12 * shadow)))
    assert iou(rgba, np.maximum(MUG, HANDLE_HOLE)) > 0.98  # in the hole there is doubt
    pale = cut(picture(MUG, texture((228, 226, 222)) * 0.5 + 112, ground(255)))
    assert iou(pale, MUG) > 0.97


def test_dust_goes_and_thin_parts_stay() -> None:
    behind = ground(246)
    behind[20, 20], behind[30:32, 200:202] = 120, 200
    thin = np.maximum(disc(120, 150, 50), rectangle(119, 20, 121, 110))
    rgba = cut(picture(thin, texture((40, 60, 90)), behind))
    assert rgba[..., 3][:60, :110].max() == rgba[..., 3][:60, 130:].max() == 0
    assert rgba[25:100, 119:121, 3].min() > 180


def photograph(seed: int) -> Bytes:
    """Blurred noise of all scales."""
    rng = np.random.default_rng(seed)
    total = sum(
        cv2.resize(rng.normal(0, 60 / cells**0.5, (cells, cells, 3)).astype(np.float32), (SIDE, SIDE)) * 1.5
        for cells in (2, 4, 8, 40, 120)
    )
    return np.clip(128 + total, 0, 255).astype(np.uint8)


def test_photographs_have_no_plain_background() -> None:
    assert not [seed for seed in range(20) if find_plain_background(photograph(seed)) is not None]
    # A bright sky over a ground; a picture all of whose border is an object's; a wall above a floor.
    sky = ground((255, 255, 255))
    sky[150:] = photograph(3)[150:]
    wall = ground((200, 190, 180), fall=10)
    wall[140:] = (90, 70, 50)
    for rgb in (sky, wall, photograph(1)):
        assert find_plain_background(rgb.astype(np.uint8)) is None


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (90, 2), (5, 5)])
def test_pictures_of_a_few_pixels(size: tuple[int, int]) -> None:
    rgb = np.full((*size, 3), 240, np.uint8)
    background = find_plain_background(rgb)
    assert background is None or background_mask(rgb, background).all()


def test_the_surface_is_found() -> None:
    rows, columns = 300, 400
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    field = 235 - 30 * ((x / columns - 0.4) ** 2 + (y / rows - 0.5) ** 2)
    rgb = np.rint(field[..., None] - [0, 3, 9]).astype(np.uint8)
    rgb[90:220, 120:300] = (60, 30, 90)
    background = find_plain_background(rgb)
    assert background is not None
    assert background.spread < 1
    found = background.colours(*np.nonzero(np.ones((rows, columns), bool))).reshape(rows, columns, 3)
    assert np.abs(found - (field[..., None] - [0, 3, 9])).max() < 1
    assert (background.distance(rgb) > 50).sum() == 130 * 180
