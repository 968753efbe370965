"""Objects put back as they were: what is right is known to the pixel, and any change of them is harm."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.measured import metric_values
from helpers.training_shards import members
from pics_cli.core.evaluation.appearance_metrics import build_reference_gallery
from pics_cli.core.evaluation.baselines import paste_references
from pics_cli.core.evaluation.evaluator import EvaluationJob
from pics_cli.core.evaluation.example_sources import open_examples
from pics_cli.core.evaluation.examples import Example, draw_example, example_from_sample, reverse_objects
from pics_cli.core.evaluation.pasted_back import paste_back
from pics_cli.core.evaluation.pixel_metrics import MAX_PSNR
from pics_cli.core.evaluation.run import EvaluationProgress, evaluate
from pics_cli.core.recipes.base import parse_override
from pics_cli.core.recipes.evaluation import EvaluationRecipe, load_evaluation
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.errors import BadSample, PicsError

SETTINGS = SceneSettings(128, 2, (("occluding", 1.0), ("containing", 1.0), ("supporting", 1.0)), 5.0, 0.4)


def no_harm(*settings: str) -> EvaluationRecipe:
    return load_evaluation("no_harm", [parse_override(text) for text in settings])


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [paste_back(draw_example(SETTINGS, 9, number, 0.75), 0.75) for number in range(4)]


def test_pasted_they_are_the_truth(examples: Sequence[Example]) -> None:
    """Whatever the order, for no object covers what is seen of another; everywhere else is the background."""
    assert any(example.iou for example in examples)
    for example in examples:
        assert not (example.visible_masks[0] & example.visible_masks[1]).any()
        for order in ((0, 1), (1, 0)):
            pasted = paste_references(example.background, example.paste_boxes, example.references, order)
            np.testing.assert_array_equal(pasted[example.seen], example.truth[example.seen])
            np.testing.assert_array_equal(pasted[~example.seen], example.background[~example.seen])


def test_harm_is_what_changes_in_the_objects(examples: Sequence[Example]) -> None:
    """None: the highest PSNR; d grey levels: 20 log10(255 / d); more and more: less and less."""
    names = ["psnr_object", "chamfer", "order"]
    gallery = build_reference_gallery(examples, 0)
    for given in examples[:2]:
        example = paste_back(replace(given, truth=np.clip(given.truth, 60, 190)), 0.75)
        right = metric_values(example.truth, example, gallery, names)
        assert (right["psnr_object"], right["chamfer"]) == (MAX_PSNR, 0)
        assert math.isnan(right["order"])
        shadowless = paste_references(example.background, example.paste_boxes, example.references, example.order)
        found = []
        for levels in (0, 1, 4, 16, 50):
            picture = shadowless.copy()
            picture[example.seen] += np.uint8(levels)
            found.append(metric_values(picture, example, gallery, names)["psnr_object"])
            if levels:
                assert found[-1] == pytest.approx(20 * math.log10(255 / levels), abs=1e-5)
        assert found == sorted(found, reverse=True)


def test_the_rest_follows_from_what_is_seen(examples: Sequence[Example]) -> None:
    given = draw_example(SETTINGS, 9, 0, 0.75)
    example = examples[0]
    assert (example.relation, example.wrong_orders) == (given.relation, ())
    for k, (x0, y0, x1, y1) in enumerate(example.paste_boxes):
        assert example.references[k].shape == (y1 - y0, x1 - x0, 4)
        assert example.references[k][..., 3].any(axis=1).all()
    assert reverse_objects(example).references[0] is example.references[1]


def test_what_cannot_be_put_back_is_told(examples: Sequence[Example]) -> None:
    with pytest.raises(BadSample, match="not known, only filled in") as caught:
        paste_back(example_from_sample("a", members(3), 1.0), 1.0)
    assert caught.value.reason == "no_clean_plate"
    seen, unseen = examples[0].visible_masks[0], np.zeros_like(examples[0].seen)
    with pytest.raises(BadSample, match="nothing is seen of object 1") as caught:
        paste_back(replace(examples[0], visible_masks=(seen, unseen)), 1.0)
    assert caught.value.reason == "empty_mask"
    with pytest.raises(PicsError, match="pictures alone have none"):
        no_harm("scenes=null", "pictures=somewhere")
    assert no_harm("scenes=null", "samples={shards: test/Rendered}").samples is not None


def test_the_shipped_recipe_is_measured(tmp_path: Path) -> None:
    """The folder says which references it has; one of the data's own, as those begun earlier, says nothing."""
    small = ("methods=[paste]", "metrics=[psnr_object]", "scenes.size=96", "scenes.count=2")
    results = evaluate(EvaluationJob(no_harm(*small), tmp_path / "out"), Ranks(), EvaluationProgress())
    assert results["figures"]["all"]["paste"]["psnr_object"]["mean"] == MAX_PSNR
    plain = EvaluationJob(no_harm(*small, "references=null"), tmp_path / "plain")
    evaluate(plain, Ranks(), EvaluationProgress())
    for folder, references in (("out", "truth"), ("plain", None)):
        begun = json.loads((tmp_path / folder / "begun.json").read_text())
        assert (begun["recipe"].get("references"), begun["data"].get("references")) == (references, references)
        assert ("references" in begun["recipe"]) == (references is not None)
    with pytest.raises(PicsError, match="references"):
        evaluate(replace(plain, output=tmp_path / "out"), Ranks(), EvaluationProgress())
    source = open_examples(no_harm(*small), 0.75)
    assert (len(source), source.warnings) == (2, [])
    (x0, y0, x1, y1), *_ = (other := source.distractors()[0]).paste_boxes
    solid = other.references[0][..., 3] > 0
    np.testing.assert_array_equal(other.references[0][solid][:, :3], other.truth[y0:y1, x0:x1][solid])
