"""Sample to network inputs: the research project's own numbers, and what they do not cover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from pics_cli.core.conditioning.network_inputs import prepare_network_inputs, prepare_reference
from pics_cli.core.images.cutouts import cut_out
from pics_cli.core.images.geometry import Box
from pics_cli.core.images.inpainting import GREY, fill_hole
from pics_cli.core.model.config import HintKind

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def flat(height: int, width: int, colour: tuple[int, ...]) -> np.ndarray:
    return np.full((height, width, len(colour)), colour, np.uint8)


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> dict[str, np.ndarray]:
    path = shared_data.parent / "golden" / "compose.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path}: the shared golden numbers are not part of the repository")
    return load_file(path)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_golden(golden: dict[str, np.ndarray], case: int) -> None:
    def given(name: str) -> np.ndarray:
        return golden[f"{case}.{name}"]

    boxes = [tuple(given(f"in.box{k}").tolist()) for k in (0, 1)]
    ours = prepare_network_inputs(given("in.background"), boxes, [given(f"in.reference{k}") for k in (0, 1)], size=512)
    assert np.abs(ours.control_image.astype(int) - given("out.hint_rgb")).max() <= 1
    np.testing.assert_array_equal(ours.control_mask, given("out.hint_mask"))
    for k in (0, 1):
        np.testing.assert_array_equal(ours.masks[k], given(f"out.mask{k}") > 0)
        assert np.abs(ours.references[k].astype(int) - given(f"out.reference{k}")).max() <= 1


@st.composite
def scenes(draw: st.DrawFn) -> tuple[int, int, list[Box]]:
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    boxes = []
    for _ in range(draw(st.integers(1, 3))):
        x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append((x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))))
    return width, height, boxes


@given(scenes(), st.sampled_from([8, 16, 32, 64]))
@settings(max_examples=60, deadline=None)
def test_regions_pixel_by_pixel(scene: tuple[int, int, list[Box]], size: int) -> None:
    """A power of two as S keeps OpenCV's nearest neighbour exact, so whole numbers do."""
    width, height, boxes = scene
    ours = prepare_network_inputs(noise(height, width), boxes, [noise(3, 4)] * len(boxes), size=size, reference_size=8)
    side = max(width, height)
    assert ours.masks.shape == (len(boxes), size, size)
    assert ours.masks.dtype == np.bool_
    assert ours.control_mask.dtype == np.int8
    for i in range(size):
        y = i * side // size - (side - height) // 2
        for j in range(size):
            x = j * side // size - (side - width) // 2
            inside = [x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in boxes]
            assert ours.masks[:, i, j].tolist() == inside
            expected = 1 if any(inside) else 0 if 0 <= x < width and 0 <= y < height else -1
            assert ours.control_mask[i, j] == expected


@given(scenes(), st.sampled_from(["background", "collage", "overlay", "layers"]), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_swapping_objects_with_their_order_swaps_masks_only(
    scene: tuple[int, int, list[Box]], hint: HintKind, random: object
) -> None:
    width, height, boxes = scene
    count = len(boxes)
    references = [noise(9 + k, 7, 4, seed=k) for k in range(count)]
    background = noise(height, width)
    turned = list(range(count))
    random.shuffle(turned)  # type: ignore[attr-defined]
    order = [turned.index(k) for k in range(count)]
    a = prepare_network_inputs(background, boxes, references, size=24, reference_size=16, hint=hint, order=range(count))
    b = prepare_network_inputs(
        background,
        [boxes[k] for k in turned],
        [references[k] for k in turned],
        size=24,
        reference_size=16,
        hint=hint,
        order=order,
    )
    np.testing.assert_array_equal(a.control_image, b.control_image)
    np.testing.assert_array_equal(a.control_mask, b.control_mask)
    np.testing.assert_array_equal(a.masks[turned], b.masks)
    np.testing.assert_array_equal(a.references[turned], b.references)


@pytest.mark.parametrize("hint", ["background", "collage", "overlay"])
def test_what_is_given_stays_as_it_was(hint: HintKind) -> None:
    background, reference = noise(20, 30), noise(9, 9, 4)
    kept = background.copy(), reference.copy()
    ours = prepare_network_inputs(background, [(2, 3, 20, 18)], [reference], size=30, hint=hint)
    np.testing.assert_array_equal(background, kept[0])
    np.testing.assert_array_equal(reference, kept[1])
    outside = ours.control_mask == 0
    np.testing.assert_array_equal(ours.control_image[outside], np.pad(background, ((5, 5), (0, 0), (0, 0)))[outside])


def test_later_in_order_lies_in_front() -> None:
    background, boxes = flat(64, 64, (9, 9, 9)), [(0, 0, 40, 40), (20, 20, 60, 60)]
    references = [flat(10, 10, (*RED, 255)), flat(10, 10, (*BLUE, 255))]
    for order, front in ((None, BLUE), ([0, 1], BLUE), ([1, 0], RED)):
        ours = prepare_network_inputs(background, boxes, references, size=64, hint="overlay", order=order)
        assert ours.control_image[30, 30].tolist() == list(front)
        assert ours.control_image[10, 10].tolist() == list(RED)
        assert ours.control_image[50, 50].tolist() == list(BLUE)


def test_collage_hides_and_overlay_shows_what_was_in_the_box() -> None:
    background = flat(60, 60, (100, 110, 120))
    background[10:50, 10:50] = GREEN
    reference = np.zeros((30, 10, 4), np.uint8)
    reference[5:25] = (*RED, 255)
    box = (10, 10, 50, 50)
    over = prepare_network_inputs(background, [box], [reference], size=60, hint="overlay").control_image
    collage = prepare_network_inputs(background, [box], [reference], size=60, hint="collage").control_image
    blank = prepare_network_inputs(background, [box], [reference], size=60).control_image
    # The object, 10 x 20, is enlarged twice: columns 20 to 40 of the box's rows.
    for hint in (over, collage):
        assert (hint[10:50, 20:40] == RED).all()
    assert (over[10:50, 10:20] == GREEN).all()
    assert (collage[10:50, 10:20] == (100, 110, 120)).all()
    assert (blank[10:50, 10:50] == 0).all()
    untouched = np.ones((60, 60), bool)
    untouched[10:50, 10:50] = False
    for hint in (over, collage, blank):
        np.testing.assert_array_equal(hint[untouched], background[untouched])


def test_colours_behind_alpha_0_stay_hidden_and_rims_are_soft() -> None:
    reference = flat(80, 80, (*GREEN, 0))
    cv2.circle(reference, (40, 40), 30, (*RED, 255), -1)
    hint = prepare_network_inputs(
        flat(40, 40, BLUE), [(10, 10, 30, 30)], [reference], size=40, hint="overlay"
    ).control_image
    assert hint[..., 1].max() == 0
    mixed = (hint[..., 0] > 20) & (hint[..., 0] < 235)
    assert mixed.sum() > 12
    assert np.abs(hint[..., 0].astype(int) + hint[..., 2] - 255).max() <= 1
    encoded = prepare_reference(reference, 40)
    assert (encoded[..., 1] == encoded[..., 2]).all(), "red over white is one red, and nothing else"
    assert (encoded[0] == 255).all()


def test_white_objects_keep_their_pixels() -> None:
    rgba = np.zeros((20, 20, 4), np.uint8)
    rgba[4:16, 4:16] = 255
    np.testing.assert_array_equal(cut_out(rgba), flat(12, 12, (255, 255, 255, 255)))
    hint = prepare_network_inputs(flat(20, 20, BLUE), [(4, 4, 16, 16)], [rgba], size=20, hint="overlay").control_image
    assert (hint[4:16, 4:16] == 255).all()
    # Without alpha: a white plate with a grey rim, on white. Only what reaches the border is not the plate.
    plate = flat(40, 40, (255, 255, 255))
    cv2.circle(plate, (20, 20), 14, (120, 120, 120), 1)
    cut = cut_out(plate)
    assert cut.shape == (29, 29, 4)
    assert cut[14, 14].tolist() == [255, 255, 255, 255]
    assert cut[0, 0, 3] == 0
    assert np.isclose((cut[..., 3] > 0).sum(), np.pi * 14**2, rtol=0.02)


def test_reference_with_alpha_is_framed_alike_whatever_margin_it_came_with() -> None:
    """The encoder saw objects that fill most of their patch; a cut-out may come in the frame of its photograph."""
    tight = np.zeros((60, 40, 4), np.uint8)
    tight[...] = (200, 40, 60, 255)
    wide = np.zeros((300, 400, 4), np.uint8)
    wide[200:260, 30:70] = tight
    framed = prepare_reference(wide)
    assert np.array_equal(framed, prepare_reference(tight))
    rows = np.flatnonzero((framed != 255).any(axis=(1, 2)))
    assert 1 / 1.25 < len(rows) / len(framed) < 1 / 1.15


def test_reference_that_is_white_all_over_is_an_object() -> None:
    assert (cut_out(flat(6, 9, (255, 255, 255))) == 255).all()
    assert (prepare_reference(flat(6, 9, (255, 255, 255))) == 255).all()


@pytest.mark.parametrize("shape", [(50, 20), (20, 50), (30, 30)])
@pytest.mark.parametrize("box", [(3, 5, 43, 95), (3, 5, 93, 30), (90, 10, 92, 90), (20, 20, 21, 21)])
def test_pasted_object_keeps_its_aspect_and_touches_its_box(shape: tuple[int, int], box: Box) -> None:
    hint = prepare_network_inputs(
        flat(100, 100, BLUE), [box], [flat(*shape, (*RED, 255))], size=100, hint="overlay"
    ).control_image
    x, y, w, h = cv2.boundingRect((hint[..., 0] > 0).astype(np.uint8))
    x0, y0, x1, y1 = box
    assert x0 <= x <= x + w <= x1
    assert y0 <= y <= y + h <= y1
    assert w == x1 - x0 or h == y1 - y0
    assert abs((x - x0) - (x1 - x - w)) <= 1
    assert abs((y - y0) - (y1 - y - h)) <= 1
    assert abs(w - h * shape[1] / shape[0]) <= max(1, shape[1] / shape[0])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"boxes": []}, "no boxes: at least one object is needed"),
        ({"boxes": [(2, 2, 2, 9)]}, "box 0 .* is empty"),
        ({"boxes": [(2, 2, 31, 9)]}, "reaches outside the picture, which is 30x20"),
        ({"references": []}, "1 boxes, but 0 references"),
        ({"references": [np.zeros((4, 4, 4), np.uint8)]}, "reference 0 is wholly transparent"),
        ({"references": [np.zeros((4, 4), np.uint8)]}, r"reference 0 is uint8 \(4, 4\), expected"),
        ({"references": [np.zeros((4, 4, 3))]}, "reference 0 is float64"),
        ({"background": np.zeros((20, 30, 4), np.uint8)}, r"background is uint8 \(20, 30, 4\), expected"),
        ({"order": [1]}, r"order \[1\] does not name each of 1 objects once"),
        ({"hint": "colage"}, "hint 'colage' is none of background, collage, overlay, layers"),
    ],
)
def test_refused(change: dict[str, object], text: str) -> None:
    arguments = {"background": noise(20, 30), "boxes": [(2, 2, 9, 9)], "references": [noise(4, 4)], "size": 16}
    with pytest.raises(ValueError, match=text):
        prepare_network_inputs(**(arguments | change))  # type: ignore[arg-type]


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 99), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_fill_keeps_what_is_known_and_stays_in_its_range(width: int, height: int, seed: int, share: float) -> None:
    rgb = noise(height, width, seed=seed) // 2 + 40
    hole = np.random.default_rng(seed).random((height, width)) < share
    filled = fill_hole(rgb, hole)
    assert filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[~hole], rgb[~hole])
    if hole.all():
        assert (filled == GREY).all()
    else:
        assert rgb[~hole].min() <= filled.min()
        assert filled.max() <= rgb[~hole].max()


@pytest.mark.parametrize("known", ["first column", "last row", "one pixel", "corner"])
def test_fill_reaches_far(known: str) -> None:
    hole = np.ones((301, 517), np.bool_)
    parts: dict[str, Any] = {"first column": np.s_[:, 0], "last row": -1, "one pixel": (150, 300), "corner": (0, 0)}
    hole[parts[known]] = False
    assert (fill_hole(flat(301, 517, (10, 200, 90)), hole) == (10, 200, 90)).all()


def test_fill_goes_smoothly_from_side_to_side() -> None:
    rgb = flat(400, 640, (0, 0, 0))
    rgb[:, 320:] = 240
    hole = np.zeros((400, 640), np.bool_)
    hole[20:380, 20:620] = True
    row = fill_hole(rgb, hole)[200, 20:620, 0].astype(int)
    steps = np.diff(row)
    assert row[0] < 25
    assert row[-1] > 215
    assert steps.min() >= -1
    assert steps.max() <= 4, "no edge, where the picture had one of 240 grey levels"
    assert np.abs(np.diff(row[::8], n=2)).max() <= 8, "no grid"


@pytest.mark.parametrize("height", [255, 256, 257, 511, 513, 1030])
def test_fill_in_blocks_is_as_in_one(height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb, hole = noise(height, 33), np.ones((height, 33), np.bool_)
    hole[:, ::11] = False
    in_blocks = fill_hole(rgb, hole)
    monkeypatch.setattr("pics_cli.core.images.inpainting._BLOCK", 4096)
    np.testing.assert_array_equal(fill_hole(rgb, hole), in_blocks)
