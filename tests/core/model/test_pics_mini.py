"""The bundled model as it is: whose weights it has, and that it puts in what it is given, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from pics_cli.core.conditioning.placement import fit_paste_boxes
from pics_cli.core.evaluation.descriptor import describe
from pics_cli.core.evaluation.examples import Example, draw_example
from pics_cli.core.evaluation.methods import composite_by_model
from pics_cli.core.images.cutouts import cut_out, paste_object
from pics_cli.core.inference.sample import CompositeOptions, Mode
from pics_cli.core.model.bundled import FILES_FILE, bundled_model
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.training import load_training
from pics_cli.core.scenes.drawn.spec import SceneSettings

WHITE = np.full((64, 64, 3), 255, np.uint8)
STYLE = SceneSettings(256, 2, (("apart", 1.0), ("touching", 1.0)), 5.0, 0.3, 2.0)


@pytest.fixture(scope="module")
def model() -> PicsModel:
    torch.set_num_threads(1)
    return PicsModel.from_pretrained(bundled_model())


@pytest.fixture(scope="module")
def scenes(model: PicsModel) -> list[Example]:
    return [draw_example(STYLE, 71, index, model.config.fill) for index in range(6)]


def composite(
    model: PicsModel, example: Example, references: Sequence[np.ndarray], mode: Mode = "parallel"
) -> np.ndarray:
    return composite_by_model(model, CompositeOptions(mode=mode), replace(example, references=tuple(references)))


def seen_as(picture: np.ndarray, example: Example, k: int, shown: np.ndarray) -> np.ndarray:
    """What is seen where a reference was to be put, by its outline."""
    (place,) = fit_paste_boxes([example.regions[k]], [shown], 0.75, 256, 256)
    outline = np.zeros((256, 256, 3), np.uint8)
    paste_object(outline, place, np.dstack([np.full_like(shown[..., :3], 255), shown[..., 3]]))
    return describe(picture, outline[..., 0] > 127)


def test_it_says_what_it_was_trained_with(model: PicsModel) -> None:
    assert model.config.trained_steps > 0
    record = json.loads((bundled_model() / FILES_FILE).read_text())
    assert record["recipe_hash"] == model.config.recipe_hash
    assert record["bytes"] <= 50_000_000
    assert ModelConfig.load(bundled_model()).image_size == load_training("mini").model.image_size == 256


def test_swapped_references_give_swapped_objects(model: PicsModel, scenes: list[Example]) -> None:
    right = 0
    for scene in scenes:
        own = [describe(cut[..., :3], cut[..., 3] > 127) for cut in map(cut_out, scene.references)]
        for shift in (0, 1):
            shown = [scene.references[(k + shift) % 2] for k in range(2)]
            picture = composite(model, scene, shown)
            for k in range(2):
                found = seen_as(picture, scene, k, shown[k])
                scores = [found @ one for one in own]
                right += int(np.argmax(scores)) == (k + shift) % 2
    assert right >= 0.95 * 4 * len(scenes)


@pytest.mark.parametrize(("mode", "index"), [("parallel", 0), ("sequential", 1)])
def test_an_empty_reference_gives_no_object(model: PicsModel, scenes: list[Example], mode: Mode, index: int) -> None:
    """Where the other object's region does not reach, the background stays; with both empty, everywhere."""
    scene = scenes[index]
    x0, y0, x1, y1 = scene.regions[0]
    alone = np.zeros((256, 256), bool)
    alone[y0:y1, x0:x1] = True
    a, b, c, d = scene.regions[1]
    alone[b:d, a:c] = False
    whole = composite(model, scene, scene.references, mode)
    one = composite(model, scene, [WHITE, scene.references[1]], mode)
    none = composite(model, scene, [WHITE, WHITE], mode)
    clean = scene.background
    assert np.abs(whole.astype(int) - clean)[alone].mean() > 10
    np.testing.assert_array_equal(one[alone], clean[alone])
    np.testing.assert_array_equal(none, clean)
    assert np.abs(one.astype(int) - clean)[b:d, a:c].mean() > 10
