"""Metrics on constructed composites with known answers, and how they move when a composite is spoilt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from helpers.measured import distractors, metric_values
from pics_cli.core.evaluation.appearance_metrics import CHOICES, ReferenceGallery, build_reference_gallery, identity
from pics_cli.core.evaluation.baselines import paste_references
from pics_cli.core.evaluation.composites import Composite, ExampleContext
from pics_cli.core.evaluation.examples import Example, draw_example
from pics_cli.core.evaluation.metrics import check_names, compute_metrics
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.errors import PicsError

SETTINGS = SceneSettings(128, 2, (("apart", 1.0), ("occluding", 2.0)), 5.0, 0.3)
SEED = 5


@pytest.fixture(scope="module")
def gallery() -> ReferenceGallery:
    return build_reference_gallery(distractors(SETTINGS, SEED, 0.8), SEED)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [draw_example(SETTINGS, SEED, number, 0.8) for number in range(8)]


def pasted(example: Example, shift: int = 0) -> np.ndarray:
    """Both references over the background, each in its own place, or in the other's."""
    count = len(example.references)
    references = [example.references[(k + shift) % count] for k in range(count)]
    return paste_references(example.background, example.paste_boxes, references, example.order)


def test_swapped_objects_leak(examples: list[Example], gallery: ReferenceGallery) -> None:
    right = [metric_values(pasted(example), example, gallery) for example in examples]
    wrong = [metric_values(pasted(example, 1), example, gallery) for example in examples]
    for name, low, high in (("assignment", 0.8, 0.2), ("identity", 0.8, 0.2)):
        assert np.nanmean([one[name] for one in right]) >= low
        assert np.nanmean([one[name] for one in wrong]) <= high
    assert np.nanmean([one["leak"] for one in wrong]) > np.nanmean([one["leak"] for one in right]) + 0.2


def test_identity_is_undefined_for_more_objects_than_choices(gallery: ReferenceGallery) -> None:
    rgb, mask = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.bool_)
    features = np.eye(CHOICES + 1, gallery.descriptors.shape[1], dtype=np.float32)
    for count, known in ((CHOICES, True), (CHOICES + 1, False)):
        example = Example(key="many", background=rgb, truth=rgb, relation="apart", visible_masks=(mask,) * count)
        value = identity(features[:count], features[:count], example, gallery)
        assert value == (1 if known else None)


def test_a_missing_object(examples: list[Example], gallery: ReferenceGallery) -> None:
    apart = [example for example in examples if example.relation == "apart"]
    assert apart
    for example in apart:
        gone = example.truth.copy()
        x0, y0, x1, y1 = example.regions[0]
        gone[y0:y1, x0:x1] = example.background[y0:y1, x0:x1]
        assert metric_values(gone, example, gallery)["missing"] == 0.5
        assert metric_values(example.truth, example, gallery)["missing"] == 0
        assert metric_values(example.background, example, gallery)["missing"] == 1
        for share, expected in ((0.3, 0), (0.2, 1)):
            faint = example.background + share * (example.truth.astype(float) - example.background)
            assert metric_values(faint.round().astype(np.uint8), example, gallery)["missing"] == expected


def test_the_wrong_one_in_front(examples: list[Example], gallery: ReferenceGallery) -> None:
    known = [example for example in examples if example.wrong_orders]
    assert known
    for example in known:
        assert metric_values(example.truth, example, gallery)["order"] in (1, pytest.approx(1))
        assert metric_values(example.wrong_orders[0], example, gallery)["order"] == 0


def test_one_changed_pixel_outside(examples: list[Example], gallery: ReferenceGallery) -> None:
    example = examples[0]
    inside = example.inside
    kept = np.where(inside[..., None], example.truth, example.background)
    assert metric_values(kept, example, gallery)["untouched"] == 0
    y, x = np.argwhere(~inside)[0]
    kept[y, x, 1] ^= 1
    assert metric_values(kept, example, gallery)["untouched"] == 1


def test_a_visible_seam(examples: list[Example], gallery: ReferenceGallery) -> None:
    """Everything in the regions a little brighter: a step along their border, the more the brighter."""
    example = examples[0]
    inside = example.inside
    steps = []
    for lift in (0, 10, 20, 40):
        brighter = np.where(inside[..., None], np.clip(example.truth.astype(int) + lift, 0, 255), example.truth)
        steps.append(metric_values(brighter.astype(np.uint8), example, gallery)["seam_box"])
    assert steps[0] == 0
    assert steps == sorted(steps)
    assert steps[1] == pytest.approx(10, abs=2)


@pytest.mark.parametrize("name", ["psnr", "psnr_region", "ssim", "ssim_region"])
def test_worse_the_more_it_is_spoilt(examples: list[Example], gallery: ReferenceGallery, name: str) -> None:
    noise = np.random.default_rng(0).normal(0, 1, (128, 128, 3))
    for example in examples[:3]:
        found = [
            metric_values(np.clip(example.truth + size * noise, 0, 255).astype(np.uint8), example, gallery)[name]
            for size in (0, 4, 12, 40)
        ]
        assert found == sorted(found, reverse=True)
        assert len(set(found)) == 4


def test_a_copy_exceeds_the_ceiling(gallery: ReferenceGallery) -> None:
    """What is pasted is more like its reference than another view of the object is."""
    far = SceneSettings(128, 2, (("apart", 1.0),), 60.0, 0.8)
    apart = [draw_example(far, SEED, number, 0.8) for number in range(4)]
    copied = [metric_values(pasted(example), example, gallery)["ceiling"] for example in apart]
    assert np.mean(copied) > 0.02
    assert all(metric_values(example.truth, example, gallery)["ceiling"] == 0 for example in apart)


def test_ssim_is_the_reference_implementation(examples: list[Example], gallery: ReferenceGallery) -> None:
    for example in examples[:2]:
        spoilt = pasted(example)
        expected = structural_similarity(
            example.truth, spoilt, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=255,
        )  # fmt: skip
        assert metric_values(spoilt, example, gallery)["ssim"] == pytest.approx(expected, abs=1e-6)


def test_objects_that_collapse(examples: list[Example], gallery: ReferenceGallery) -> None:
    """By their cosines to their references: of 0.35, 0.45, 0.55 and 0.9 one, two and three are below 0.4, 0.5, 0.6."""
    composite = Composite(examples[0].truth, ExampleContext(examples[0], gallery))
    vars(composite)["dino"] = np.array([0.55, 0.35, 0.9, 0.45], np.float32)
    found = compute_metrics(composite, ["collapse_40", "collapse_50", "collapse_60", "dino_i"])
    assert found == {"dino_i": pytest.approx(0.5625), "collapse_40": 0.25, "collapse_50": 0.5, "collapse_60": 0.75}


def test_only_what_is_asked_for(examples: list[Example], gallery: ReferenceGallery) -> None:
    assert list(metric_values(examples[0].truth, examples[0], gallery, ["seam", "psnr"])) == ["psnr", "seam"]


def test_what_nobody_knows_stays_empty(examples: list[Example], gallery: ReferenceGallery) -> None:
    example = replace(examples[0], full_masks=None, true_background=False, overlaps=(), front_to_back=None)
    found = metric_values(example.truth, example, gallery)
    assert all(np.isnan(found[name]) for name in ("shadow", "lit", "order"))
    few = ReferenceGallery(gallery.descriptors[:3], gallery.owners[:3], SEED)
    assert np.isnan(metric_values(example.truth, example, few)["identity"])


def test_other_sizes_are_refused(examples: list[Example], gallery: ReferenceGallery) -> None:
    with pytest.raises(PicsError, match="00000000: the picture is 128x64, the truth 128x128"):
        metric_values(examples[0].truth[:64], examples[0], gallery, ["psnr"])


def test_unknown_names() -> None:
    with pytest.raises(PicsError, match="psnr_regoin, which is no metric") as error:
        check_names(["psnr", "psnr_regoin"])
    assert "did you mean psnr_region?" in str(error.value.hint)
