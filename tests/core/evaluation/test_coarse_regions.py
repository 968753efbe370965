"""Regions drawn carelessly: they hold the true ones, models alone are given them, and metrics go by the true ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal
from unittest import mock

import numpy as np
import pytest

from helpers.measured import OF_A_PICTURE, metric_values
from pics_cli.core.evaluation.appearance_metrics import build_reference_gallery
from pics_cli.core.evaluation.coarse_regions import blob_box, give_regions
from pics_cli.core.evaluation.evaluator import EvaluationJob
from pics_cli.core.evaluation.example_sources import DrawnExamples, open_examples
from pics_cli.core.evaluation.examples import Example, draw_example, region_counts, reverse_objects
from pics_cli.core.evaluation.run import EvaluationProgress, evaluate
from pics_cli.core.images.geometry import Box
from pics_cli.core.recipes.base import parse_override
from pics_cli.core.recipes.evaluation import EvaluationRecipe, GivenRegions, load_evaluation
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.errors import PicsError

SETTINGS = SceneSettings(128, 2, (("apart", 1.0), ("occluding", 1.0)), 5.0, 0.4)
BLOB = GivenRegions(shape="blob")


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [draw_example(SETTINGS, 9, number, 0.75) for number in range(4)]


def drawn(*settings: str) -> EvaluationRecipe:
    small = ("methods=[paste]", "metrics=[psnr, untouched]", "scenes.size=96", "scenes.count=2")
    return load_evaluation("synth_bench", [parse_override(text) for text in (*small, *settings)])


def holds(outer: Box, inner: Box) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]


@pytest.mark.parametrize("shape", ["box", "blob"])
def test_they_hold_the_true_ones_and_grow(examples: Sequence[Example], shape: Literal["box", "blob"]) -> None:
    for example in examples:
        given = [give_regions(example, GivenRegions(shape=shape, grow=grow), 5, 0.75) for grow in (1.0, 1.25, 1.5, 4.0)]
        assert (given[0].given_regions == example.regions) == (given[0].given_boxes == example.paste_boxes)
        assert (given[0].given_regions == example.regions) == (shape == "box")
        boxes = [example.paste_boxes, *(each.given_boxes for each in given)]
        regions = [example.regions, *(each.given_regions for each in given)]
        for k in range(2):
            for sizes in (boxes, regions):
                assert all(holds(outer[k], inner[k]) for inner, outer in pairwise(sizes))
            widths = np.array([x1 - x0 for x0, _, x1, _ in (each.given_boxes[k] for each in given)])
            assert widths / widths[0] == pytest.approx([1, 1.25, 1.5, 4], abs=0.1)
        for each in given:
            assert (each.paste_boxes, each.regions, each.order) == (boxes[0], regions[0], example.order)
            np.testing.assert_array_equal(each.allowed, region_counts(each.given_regions, 128, 128) > 0)
        swapped = reverse_objects(given[1])
        assert (swapped.given_boxes[::-1], swapped.given_regions[::-1]) == (boxes[2], regions[2])


def test_blobs_are_functions_of_seed_and_sample(examples: Sequence[Example]) -> None:
    boxes = [give_regions(example, BLOB, seed, 0.75).given_boxes for example in examples for seed in (5, 5, 6)]
    assert boxes[0::3] == boxes[1::3]
    assert all(a != b for a, b in zip(boxes[0::3], boxes[2::3], strict=True))
    assert len({box for pair in boxes for box in pair}) == 16


def test_the_blob_of_a_disc() -> None:
    """Against the formula at many angles; without phases the disc leans down and to the right."""
    rows, columns = np.mgrid[:200, :200]
    disc = (rows - 99.5) ** 2 + (columns - 99.5) ** 2 < 40**2
    rng = mock.Mock(uniform=mock.Mock(return_value=np.zeros(3)))
    angles = np.linspace(0, 2 * np.pi, 100_000)
    radius = 40 * (1 + 0.4 * (0.5 + (np.sin(angles) + np.sin(2 * angles) + np.sin(3 * angles)) / 6))
    across, down = 100 + radius * np.cos(angles), 100 + radius * np.sin(angles)
    expected = across.min(), down.min(), across.max(), down.max()
    assert np.abs(np.subtract(blob_box(disc, (60, 60, 140, 140), rng), expected)).max() <= 1.5
    assert blob_box(np.zeros_like(disc), (3, 4, 9, 8), rng) == (3, 4, 9, 8)


def test_what_lies_in_them_may_change_and_nothing_else_is_judged_by_them(examples: Sequence[Example]) -> None:
    gallery = build_reference_gallery(examples, 0)
    example = examples[0]
    given = give_regions(example, GivenRegions(grow=1.5), 5, 0.75)
    band = given.allowed & ~example.inside
    assert band.any()
    picture = example.background.copy()
    picture[band] ^= 64
    exact, coarse = (metric_values(picture, each, gallery) for each in (example, given))
    by_region = {"untouched", "background_mse"}
    assert [exact["untouched"], coarse["untouched"], coarse["background_mse"]] == [np.count_nonzero(band), 0, 0]
    assert exact["background_mse"] > 0
    for name in set(OF_A_PICTURE) - by_region:
        assert exact[name] == coarse[name] or np.isnan([exact[name], coarse[name]]).all(), name
    picture[~given.allowed] ^= 1
    assert metric_values(picture, given, gallery, by_region)["untouched"] == np.count_nonzero(~given.allowed)


def test_the_recipe_says_it(tmp_path: Path) -> None:
    """Baselines paste where the object is; a folder of exact regions is that of a recipe without the key."""
    found = []
    for name, settings in (("exact", ("regions.grow=1",)), ("coarse", ("regions.shape=blob", "regions.grow=1.5"))):
        job = EvaluationJob(drawn(*settings), tmp_path / name)
        found.append(evaluate(job, Ranks(), EvaluationProgress()))
        begun = json.loads((tmp_path / name / "begun.json").read_text())
        assert ("regions" in begun["recipe"], "regions" in begun["data"]) == (name == "coarse",) * 2
    assert found[1]["data"]["regions"] == {"shape": "blob", "grow": 1.5}
    exact, coarse = (results["figures"]["all"]["paste"]["psnr"] for results in found)
    assert exact == coarse
    assert isinstance(open_examples(drawn(), 0.75), DrawnExamples)
    with pytest.raises(PicsError, match="regions"):
        evaluate(EvaluationJob(drawn(), tmp_path / "coarse"), Ranks(), EvaluationProgress())
    with pytest.raises(PicsError, match=r"regions\.grow: got 0\.5, expected 1 <= value <= 4"):
        drawn("regions.grow=0.5")
    with pytest.raises(PicsError, match="pictures alone have none"):
        drawn("scenes=null", "pictures=somewhere", "regions.grow=2")
    both = open_examples(drawn("references=truth", "regions.grow=2"), 0.75)[0]
    assert holds(both.given_boxes[0], both.paste_boxes[0])
    assert both.references[0].shape[1] == both.paste_boxes[0][2] - both.paste_boxes[0][0]
