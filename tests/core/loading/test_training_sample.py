"""What a training step sees of a sample: exact alpha, the published arithmetic, order, alternates, faults."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.making import encoded, smooth
from helpers.training_shards import STILL, boxes_of, members
from pics_cli.core.conditioning.network_inputs import prepare_network_inputs, prepare_reference
from pics_cli.core.conditioning.placement import choose_window, to_window
from pics_cli.core.images.geometry import Letterbox, scale_box
from pics_cli.core.images.image_io import decode_image, encode_png
from pics_cli.core.images.masks import box_mask, decode_mask_png
from pics_cli.core.loading.training_sample import TrainingSample, prepare_training_sample, without_augmentation
from pics_cli.core.model.config import HintKind
from pics_cli.core.recipes.training_sections import AugmentSettings
from pics_cli.core.shards.layouts import Members
from pics_cli.errors import BadSample

VARIED = AugmentSettings()


def made(sample: Members, augment: AugmentSettings = STILL, **options: Any) -> TrainingSample:
    given = {"set_name": "S", "key": "k", "rng_keys": (0, 0), "seed": 0, "size": 64, "reference_size": 56,
             "hint": "background"}  # fmt: skip
    return prepare_training_sample(sample, augment=augment, **{**given, **options})


def members_of(arrays: TrainingSample) -> dict[str, Any]:
    """The arrays under names that are not known beforehand."""
    return {**arrays}


def cut_outs(sample: Members, width: int = 96, height: int = 64) -> list[Any]:
    """Each object with alpha, by plain numpy."""
    rgb = decode_image(sample["bg.jpg"]).rgb
    found = []
    for k in range(sum(name.startswith("mask") for name in sample)):
        mask = decode_mask_png(sample[f"mask{k}.png"], "", (width, height))
        x0, y0, x1, y1 = box_mask(mask).box
        found.append(np.dstack([rgb, mask * np.uint8(255)])[y0:y1, x0:x1])
    return found


def with_empty(sample: Members, empty: bool = True) -> Members:
    """The sample with a picture without its objects, or as it is."""
    if not empty:
        return sample
    height, width = decode_image(sample["bg.jpg"]).rgb.shape[:2]
    return {**sample, "clean.jpg": encode_png(np.full((height, width, 3), (90, 140, 60), np.uint8))}


def test_a_photograph_would_show_the_answer() -> None:
    """Hint overlay leaves the background as it is, so it must be one without the objects."""
    with pytest.raises(BadSample, match=r"hint overlay needs clean\.jpg") as caught:
        made(members(1), hint="overlay")
    assert caught.value.reason == "no_clean"


@pytest.mark.parametrize(("hint", "empty"), [("background", 0), ("background", 1), ("collage", 0), ("overlay", 1)])
@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 96), (64, 64), (201, 130)])
def test_without_variation_as_inference_composes(hint: HintKind, empty: bool, width: int, height: int) -> None:
    """Control image, references and boxes are those of `prepare_network_inputs` for true boxes and cut-outs.

    The hint is made of the picture without the objects where the sample has it; references never are.
    """
    sample = with_empty(members(1, width=width, height=height), empty)
    arrays = made(sample, hint=hint)
    behind = decode_image(sample["clean.jpg" if empty else "bg.jpg"]).rgb
    boxes = boxes_of(2, width, height)
    expected = prepare_network_inputs(
        behind, boxes, cut_outs(sample, width, height), size=64, reference_size=56, hint=hint, order=(0, 1)
    )
    assert np.array_equal(arrays["control_image"], expected.control_image)
    assert np.array_equal(arrays["references"], expected.references)
    masks = np.zeros((2, 64, 64), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, arrays["boxes"], strict=True):
        mask[y0:y1, x0:x1] = True
    assert np.array_equal(masks, expected.masks)
    x0, y0, x1, y1 = arrays["content"]
    to_window = np.zeros((64, 64), bool)
    to_window[y0:y1, x0:x1] = True
    assert np.array_equal(to_window, expected.control_mask >= 0)
    kinds = {name: (value.dtype, value.shape) for name, value in members_of(arrays).items()}
    assert kinds == {
        "control_image": (np.uint8, (64, 64, 3)), "target": (np.uint8, (64, 64, 3)), "boxes": (np.int16, (2, 4)),
        "content": (np.int16, (4,)), "references": (np.uint8, (2, 56, 56, 3)),
    }  # fmt: skip


@pytest.mark.parametrize("hint", ["collage", "layers"])
@pytest.mark.parametrize("window_size", [None, 8])
def test_the_window_is_the_one_of_inference(hint: HintKind, window_size: int | None) -> None:
    """Hint and target are those of the window that `pics infer` takes, and places are moved along."""
    width, height = 320, 200
    sample = with_empty(members(1, width=width, height=height), hint == "layers")
    boxes = boxes_of(2, width, height)
    boxes = [(x0 // 4 + 60, y0 // 4 + 50, x1 // 4 + 60, y1 // 4 + 50) for x0, y0, x1, y1 in boxes]
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        mask = np.zeros((height, width), bool)
        mask[y0:y1, x0:x1] = True
        sample[f"mask{k}.png"] = box_mask(mask).png()
    part = choose_window(boxes, width, height, "auto", window_size or 64)
    assert part[2] - part[0] < width
    arrays = made(sample, replace(STILL, crop="auto"), hint=hint, window_size=window_size, object_scale=0.75)
    rgb = decode_image(sample["bg.jpg"]).rgb
    behind = decode_image(sample["clean.jpg"]).rgb if hint == "layers" else rgb
    x0, y0, x1, y1 = part
    cuts = [np.dstack([rgb, np.full((height, width), 255, np.uint8)])[b:d, a:c] for a, b, c, d in boxes]
    expected = prepare_network_inputs(
        behind[y0:y1, x0:x1], to_window(boxes, part), cuts, size=64, reference_size=56, hint=hint,
        paste_boxes=to_window([scale_box(box, 0.75) for box in boxes], part),
    )  # fmt: skip
    assert np.array_equal(arrays["control_image"], expected.control_image)
    square = Letterbox(x1 - x0, y1 - y0, 64)
    assert np.array_equal(arrays["target"], square.forward(np.ascontiguousarray(rgb[y0:y1, x0:x1]), antialias=True))
    assert [tuple(box) for box in arrays["boxes"]] == [square.forward_box(box) for box in to_window(boxes, part)]


def test_target_by_hand() -> None:
    """Black to a centred square, then bilinear as published; by area where the hint is."""
    sample = members(2)
    rgb = decode_image(sample["bg.jpg"]).rgb
    square = np.zeros((96, 96, 3), np.uint8)
    square[16:80] = rgb
    bilinear, area = (cv2.resize(square, (64, 64), interpolation=how) for how in (cv2.INTER_LINEAR, cv2.INTER_AREA))
    assert np.array_equal(made(sample)["target"], bilinear)
    assert np.array_equal(made(sample, hint="collage")["target"], area)
    outside = made(sample)["control_image"].astype(int) - bilinear
    x0, y0, x1, y1 = np.concatenate([made(sample)["boxes"][:, :2].min(0) - 1, made(sample)["boxes"][:, 2:].max(0) + 1])
    outside[y0:y1, x0:x1] = 0
    assert not outside.any()


def test_both_layouts_and_no_stored_patch_is_read() -> None:
    """Run lengths in the json give the same as mask members; the published patches are not needed."""
    sample = members(3, meta={})
    meta = json.loads(sample["json"])
    compact = {"bg.jpg": sample["bg.jpg"]}
    for k in range(2):
        mask = box_mask(decode_mask_png(sample[f"mask{k}.png"], "", (96, 64)))
        meta["objects"][k] |= {"mask": {"rle": mask.rle()}, "patch": {"crop": list(mask.box), "padding": 1.2}}
    compact["json"] = json.dumps(meta).encode()
    damaged = {**sample, "obj0.png": b"never looked at"}
    for name, value in members_of(made(sample, VARIED)).items():
        assert np.array_equal(value, members_of(made(compact, VARIED))[name])
        assert np.array_equal(value, members_of(made(damaged, VARIED))[name])


def test_white_objects_keep_their_white() -> None:
    """Alpha is the mask: white pixels of an object are not taken for its surroundings."""
    sample = members(4)
    white = encode_png(np.full((64, 96, 3), 255, np.uint8))
    arrays = made({**sample, "bg.jpg": white}, hint="collage")
    assert (arrays["references"] == 255).all()
    black = encode_png(np.zeros((64, 96, 3), np.uint8))
    arrays = made({**sample, "bg.jpg": black}, hint="background")
    shares = [(reference < 128).mean() for reference in arrays["references"]]
    assert all(0.1 < share < 0.6 for share in shares)


def test_draws_follow_from_seed_set_key_and_time() -> None:
    sample = members(5)
    same = made(sample, VARIED)
    assert all(
        np.array_equal(value, members_of(made(sample, VARIED))[name]) for name, value in members_of(same).items()
    )
    for other in ({"seed": 1}, {"set_name": "T"}, {"key": "l"}, {"rng_keys": (1, 0)}, {"rng_keys": (0, 1)}):
        assert not np.array_equal(same["references"], made(sample, VARIED, **other)["references"])
    assert np.array_equal(same["target"], made(sample, VARIED, seed=1)["target"])


def test_boxes_grow_and_stay_inside() -> None:
    sample, tight = members(6), made(members(6))["boxes"]
    grown = [made(sample, VARIED, rng_keys=(epoch,))["boxes"] for epoch in range(20)]
    for boxes in grown:
        assert (boxes[:, :2] <= tight[:, :2]).all()
        assert (boxes[:, 2:] >= tight[:, 2:]).all()
        assert boxes.min() >= 0
        assert boxes.max() <= 64
    assert len({boxes.tobytes() for boxes in grown}) > 10


def test_order_of_the_objects() -> None:
    """Back to front as the json says, which counts front to back; else the lower box is nearer.

    With references swapped: pasted over themselves, objects would give the picture in any order.
    """
    plain = with_empty(members(7))
    known = {order: with_empty(members(7, meta={"order": list(order)})) for order in ((0, 1), (1, 0))}
    hints = {
        order: made(sample, hint="overlay", swap_references=True)["control_image"] for order, sample in known.items()
    }
    assert np.array_equal(
        made(plain, hint="overlay", swap_references=True)["control_image"], hints[1, 0]
    )  # object 1 reaches lower
    assert not np.array_equal(hints[0, 1], hints[1, 0])
    behind, boxes = decode_image(plain["clean.jpg"]).rgb, boxes_of(2)
    expected = prepare_network_inputs(
        behind, boxes, cut_outs(plain)[::-1], size=64, reference_size=56, hint="overlay", order=(1, 0)
    )
    assert np.array_equal(hints[0, 1], expected.control_image)


def test_a_hint_of_layers_guesses_as_inference_does() -> None:
    """Whatever the json says: the network has to find the true order itself, from both."""
    sample = with_empty(members(7, meta={"order": [0, 1]}))
    found = made(sample, hint="layers", swap_references=True)["control_image"]
    lower = made(with_empty(members(7)), hint="overlay", swap_references=True)["control_image"]
    assert np.array_equal(found[..., :3], lower)
    assert np.array_equal(found[..., 3:6], made(sample, hint="overlay", swap_references=True)["control_image"])
    behind = decode_image(sample["clean.jpg"]).rgb
    assert np.array_equal(found[..., 6:], Letterbox(96, 64, 64).forward(behind, antialias=True))


def test_room_for_shadows() -> None:
    """Regions grow, and the objects in the hint stay where they are in the picture."""
    sample = with_empty(members(9))
    roomy = replace(STILL, box_growth=(1.25, 1.25))
    tight, found = made(sample, hint="overlay"), made(sample, roomy, hint="overlay", object_scale=0.8)
    assert np.array_equal(found["control_image"], tight["control_image"])
    assert (found["boxes"][:, 2:] - found["boxes"][:, :2] > 1.1 * (tight["boxes"][:, 2:] - tight["boxes"][:, :2])).all()
    assert not np.array_equal(made(sample, roomy, hint="overlay")["control_image"], tight["control_image"])


def test_an_alternate_spans_what_is_hidden_too() -> None:
    """It shows the whole object, so its box is that of the mask with hidden parts; a cut-out has the visible one."""
    hidden = np.zeros((64, 96), bool)
    hidden[2:60, 3:90] = True
    alternate = np.full((224, 224, 4), (10, 200, 30, 255), np.uint8)
    sample = {**members(8), "alt0.png": encode_png(alternate), "full0.png": box_mask(hidden).png()}
    whole = made(sample, replace(STILL, alternate=1.0))
    assert whole["boxes"][0].tolist() == list(Letterbox(96, 64, 64).forward_box((3, 2, 90, 60)))
    cut = made(sample)
    assert np.array_equal(cut["boxes"], made(members(8))["boxes"])
    assert np.array_equal(cut["boxes"][1], whole["boxes"][1])


def test_absent_objects() -> None:
    """As often as asked: white references, nothing in the hint, and the background as what it is to become."""
    sample = with_empty(members(10))
    never, always = replace(STILL, absent=0.0), replace(STILL, absent=1.0)
    empty = made(sample, always, hint="layers")
    assert (empty["references"] == 255).all()
    for at in (0, 3, 6):
        assert np.array_equal(empty["control_image"][..., at : at + 3], empty["target"])
    assert np.array_equal(empty["boxes"], made(sample, never, hint="layers")["boxes"])
    some = replace(STILL, absent=0.3)
    seen = [bool((made(sample, some, rng_keys=(epoch,))["references"] == 255).all()) for epoch in range(60)]
    assert 8 < sum(seen) < 30
    assert without_augmentation(some).absent == 0


@pytest.mark.parametrize("order", [[0], [0, 0], [0, 2], ["0", "1"], [0.0, 1.0], [True, False], "01", 7])
def test_order_that_is_none(order: object) -> None:
    with pytest.raises(BadSample, match="order") as caught:
        made(members(7, meta={"order": order}))
    assert caught.value.reason == "bad_json"


def test_alternates() -> None:
    """Another view of an object is its reference as often as asked, and its place stays."""
    alternate = np.zeros((224, 224, 4), np.uint8)
    alternate[50:150, 80:130] = (10, 200, 30, 255)
    sample = {**members(8), "alt1.png": encode_png(alternate)}
    always, never = replace(STILL, alternate=1.0), STILL
    assert np.array_equal(made(sample, never)["references"], made(members(8))["references"])
    found = made(sample, always)
    assert np.array_equal(found["references"][0], made(sample, never)["references"][0])
    assert np.array_equal(found["references"][1], prepare_reference(alternate[50:150, 80:130], 56))
    assert np.array_equal(found["boxes"], made(sample, never)["boxes"])
    half = replace(STILL, alternate=0.5)
    taken = [np.array_equal(made(sample, half, key=str(n))["references"][1], found["references"][1]) for n in range(40)]
    assert 8 < sum(taken) < 32


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_swapped_references(objects: int) -> None:
    own, swapped = made(members(9, objects)), made(members(9, objects), swap_references=True)
    assert np.array_equal(swapped["references"], np.roll(own["references"], 1, axis=0))
    assert all(np.array_equal(own[name], swapped[name]) for name in ("control_image", "target", "boxes", "content"))
    if objects > 1:
        own_hint, swapped_hint = (
            made(members(9, objects), swap_references=swap, hint="collage")["control_image"] for swap in (False, True)
        )
        assert not np.array_equal(own_hint, swapped_hint)


def test_still() -> None:
    """Validation sees no variation, whenever it looks; and alternates where training mostly does."""
    sample = members(10)
    assert np.array_equal(made(sample, without_augmentation(VARIED))["references"], made(sample, STILL)["references"])
    assert np.array_equal(made(sample, without_augmentation(VARIED), seed=3)["boxes"], made(sample, STILL)["boxes"])
    assert [without_augmentation(replace(VARIED, alternate=share)).alternate for share in (0.0, 0.4, 0.6, 1.0)] == [
        0,
        0,
        1,
        1,
    ]


def clear(width: int = 224) -> bytes:
    return encode_png(np.zeros((width, width, 4), np.uint8))


FAULTS: dict[str, tuple[dict[str, bytes | None], str]] = {
    "no picture": ({"bg.jpg": None}, "missing_member"),
    "no mask": ({"mask1.png": None}, "missing_member"),
    "cut picture": ({"bg.jpg": encoded(smooth(64, 96))[:900]}, "truncated_image"),
    "no JPEG": ({"bg.jpg": b"\xff\xd8\xff"}, "unreadable_image"),
    "an empty mask": ({"mask0.png": encode_png(np.zeros((64, 96, 3), np.uint8))}, "empty_mask"),
    "a full mask": ({"mask0.png": encode_png(np.full((64, 96, 3), 255, np.uint8))}, "full_mask"),
    "another size": ({"mask0.png": encode_png(np.full((64, 95, 3), 255, np.uint8))}, "mask_size"),
    "more members": ({"txt": b"a cat"}, "extra_member"),
    "a bad json": ({"json": b"{"}, "bad_json"),
    "a wholly transparent alternate": ({"alt0.png": clear()}, "bad_reference"),
    "an alternate of another size": ({"alt0.png": clear(100)}, "bad_reference"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str) -> None:
    changes, reason = FAULTS[name]
    sample = {key: data for key, data in {**members(11), **changes}.items() if data is not None}
    with pytest.raises(BadSample) as caught:
        made(sample, replace(STILL, alternate=1.0))
    assert caught.value.reason == reason


def test_an_object_between_the_pixels_of_the_square() -> None:
    sample = members(12, width=960, height=640)
    mask = np.zeros((640, 960), bool)
    mask[301, 100:300] = True
    with pytest.raises(BadSample, match="region of object 1 is 200x1 pixels") as caught:
        made({**sample, "mask1.png": box_mask(mask).png()})
    assert caught.value.reason == "tiny_region"
