"""What is measured of a model is what `pics infer` makes with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.composites import composed, mask_of, run
from helpers.trainees import CORRECTING, small
from pics_cli.core.evaluation.coarse_regions import give_regions
from pics_cli.core.evaluation.examples import Example, draw_example
from pics_cli.core.evaluation.methods import (
    BASELINES,
    MODEL_METHODS,
    composite_by_baseline,
    composite_by_model,
)
from pics_cli.core.inference.sample import CompositeOptions, Mode
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.evaluation import GivenRegions
from pics_cli.core.scenes.drawn.spec import SceneSettings

SEED = 4
SETTINGS = SceneSettings(160, 2, (("occluding", 1.0), ("apart", 1.0)), 5.0, 0.4)


@pytest.fixture(scope="module", params=["overlay", "layers"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("models") / request.param
    small(**{**CORRECTING, "hint": request.param, "fill": 0.8, "steps": 2, "guidance": 1.5}).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [draw_example(SETTINGS, SEED, number, 0.8) for number in range(3)]


@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_as_infer_makes_it(folder: Path, examples: list[Example], mode: Mode, tmp_path: Path) -> None:
    for example in examples:
        sample = tmp_path / "in" / example.key
        sample.mkdir(parents=True)
        Image.fromarray(example.background).save(sample / "image.png")
        for k, (region, reference) in enumerate(zip(example.regions, example.references, strict=True)):
            Image.fromarray(reference).save(sample / f"object_{k}.png")
            mask_of(region, (160, 160)).save(sample / f"object_{k}_mask.png")
    report = run(tmp_path / "in", tmp_path / "out", folder, steps=2, seed=SEED, mode=mode, dtype="fp32")
    assert report.written == 3
    theirs = composed(tmp_path / "out")
    model = PicsModel.from_pretrained(folder)
    for example in examples:
        ours = composite_by_model(model, CompositeOptions(seed=SEED, mode=mode), example)
        assert (ours != example.background).any()
        np.testing.assert_array_equal(ours, theirs[f"composed_{example.key}.png"])


def test_methods_differ(folder: Path, examples: list[Example]) -> None:
    model = PicsModel.from_pretrained(folder)
    options = [CompositeOptions(seed=SEED, mode=mode) for mode in MODEL_METHODS]
    pictures = [composite_by_model(model, each, examples[0]).tobytes() for each in options]
    pictures += [composite_by_baseline(name, examples[0]).tobytes() for name in BASELINES]
    assert len(set(pictures)) == 4


def test_models_paint_in_the_regions_that_they_are_given(folder: Path, examples: list[Example]) -> None:
    model, options = PicsModel.from_pretrained(folder), CompositeOptions(seed=SEED)
    example = examples[0]
    exact = composite_by_model(model, options, example)
    same = composite_by_model(model, options, give_regions(example, GivenRegions(), SEED, 0.8))
    np.testing.assert_array_equal(exact, same)
    given = give_regions(example, GivenRegions(grow=1.5), SEED, 0.8)
    changed = (composite_by_model(model, options, given) != example.background).any(axis=2)
    assert (changed & ~example.inside).any()
    assert not (changed & ~given.allowed).any()
