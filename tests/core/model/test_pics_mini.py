"""The bundled model as it is: whose weights it has, and that it puts in what it is given, and nothing else."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pytest
import torch

from pics_cli.core.data.cutouts import cut_out, paste
from pics_cli.core.data.masks import Mask
from pics_cli.core.data.places import places_of
from pics_cli.core.data.synth.plan import Style, plan_scene
from pics_cli.core.data.synth.render import render
from pics_cli.core.evaluation.descriptor import describe, similarity
from pics_cli.core.geometry import Box, clip_box, scaled
from pics_cli.core.inference.native import corrected
from pics_cli.core.inference.prepare import inputs_of, painters_of
from pics_cli.core.model.bundled import FILE, bundled_model
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.pipeline import PicsPipeline
from pics_cli.core.recipe import digest
from pics_cli.core.training_recipe import load_training, plain_recipe

WHITE = np.full((64, 64, 3), 255, np.uint8)
STYLE = Style(256, 2, (("apart", 1.0), ("touching", 1.0)), 5.0, 0.3, 2.0)


class Scene(NamedTuple):
    """A background, the regions of two objects and their references."""

    clean: np.ndarray
    regions: list[Box]
    references: list[np.ndarray]


@pytest.fixture(scope="module")
def model() -> PicsPipeline:
    torch.set_num_threads(1)
    return PicsPipeline.from_pretrained(bundled_model())


@pytest.fixture(scope="module")
def scenes(model: PicsPipeline) -> list[Scene]:
    found = []
    for index in range(6):
        drawn = render(plan_scene(STYLE, "held_out", 71, index))
        boxes = [clip_box(scaled(box_of(mask), 1 / model.config.fill), 256, 256) for mask in drawn.full]
        found.append(Scene(drawn.clean, boxes, list(drawn.alternates)))
    return found


def box_of(mask: Mask) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def composite(model: PicsPipeline, scene: Scene, references: list[np.ndarray]) -> np.ndarray:
    blends: list = []
    inputs = inputs_of(scene.clean, scene.regions, references, model.config)
    model([inputs], model.noise(0, "scene")[None, None], blends=blends)
    paint = painters_of(scene.clean, scene.regions, references, model.config)
    return corrected(scene.clean, paint, *(each[0, 0].numpy() for each in blends[0]))


def seen_as(picture: np.ndarray, scene: Scene, k: int, shown: np.ndarray) -> np.ndarray:
    """What is seen where a reference was to be put, by its outline."""
    (place,) = places_of([scene.regions[k]], [shown], 0.75, 256, 256)
    outline = np.zeros((256, 256, 3), np.uint8)
    paste(outline, place, np.dstack([np.full_like(shown[..., :3], 255), shown[..., 3]]))
    return describe(picture, outline[..., 0] > 127)


def test_it_comes_from_the_recipe(model: PicsPipeline) -> None:
    recipe = load_training("mini_finish")
    assert model.config.recipe_hash == digest(plain_recipe(recipe))
    assert 0 < model.config.trained_steps <= recipe.steps
    record = json.loads((bundled_model() / FILE).read_text())
    assert record["recipe_hash"] == model.config.recipe_hash
    assert record["bytes"] <= 25_000_000
    assert ModelConfig.load(bundled_model()).image_size == load_training("mini").model.image_size == 256


def test_swapped_references_give_swapped_objects(model: PicsPipeline, scenes: list[Scene]) -> None:
    right = 0
    for scene in scenes:
        own = [describe(cut[..., :3], cut[..., 3] > 127) for cut in map(cut_out, scene.references)]
        for shift in (0, 1):
            shown = [scene.references[(k + shift) % 2] for k in range(2)]
            picture = composite(model, scene, shown)
            for k in range(2):
                found = seen_as(picture, scene, k, shown[k])
                scores = [similarity(found, one) for one in own]
                right += int(np.argmax(scores)) == (k + shift) % 2
    assert right >= 0.95 * 4 * len(scenes)


@pytest.mark.xfail(strict=True, reason="interim weights darken one of six large empty regions; docs/pics-mini.md")
def test_an_empty_reference_gives_no_object(model: PicsPipeline, scenes: list[Scene]) -> None:
    """Where the other object's region does not reach, the background stays; with both empty, everywhere."""
    for scene in scenes:
        x0, y0, x1, y1 = scene.regions[0]
        alone = np.zeros((256, 256), bool)
        alone[y0:y1, x0:x1] = True
        a, b, c, d = scene.regions[1]
        alone[b:d, a:c] = False
        whole = composite(model, scene, scene.references)
        one = composite(model, scene, [WHITE, scene.references[1]])
        none = composite(model, scene, [WHITE, WHITE])
        with_it, without = (np.abs(each.astype(int) - scene.clean)[alone].mean() for each in (whole, one))
        assert without < 3
        assert without < 0.25 * with_it
        assert np.abs(none.astype(int) - scene.clean).mean() < 2
