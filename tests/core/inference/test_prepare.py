"""A planned sample to the network's inputs: hint kinds, paste order, windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from composites import BOXES, make_sample
from pics_cli.core.inference.inputs import list_sample, part_hashes
from pics_cli.core.inference.job import Failure
from pics_cli.core.inference.plan import Task
from pics_cli.core.inference.prepare import Prepared, prepare
from pics_cli.core.inference.settings import ORDER_BIAS, Settings
from pics_cli.core.model.config import ModelConfig

CONFIG = ModelConfig(image_size=64, reference_size=28)
SETTINGS = Settings(
    steps=1, guidance=1.0, scheduler="ddim", crop="auto", feather=None, mode="parallel", order=None, dtype="fp32"
)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    files = list_sample(make_sample(tmp_path / "a"), None)
    return Task(files, (0,), {"inputs": part_hashes(files)})


def prepared(task: Task, settings: Settings, config: ModelConfig) -> Prepared:
    found = prepare(task, settings, config)
    assert isinstance(found, Prepared)
    return found


@pytest.mark.parametrize("hint", ["background", "collage", "overlay"])
def test_the_order_of_pasting_matters_where_references_are_pasted(task: Task, hint: str) -> None:
    config = replace(CONFIG, hint=hint)
    first = prepared(task, replace(SETTINGS, order=(0, 1)), config)
    second = prepared(task, replace(SETTINGS, order=(1, 0)), config)
    without = prepared(task, SETTINGS, config)
    assert np.array_equal(first.network.control_image, second.network.control_image) == (hint == "background")
    assert np.array_equal(first.network.control_image, without.network.control_image), "the second box reaches lower"
    assert (first.bias, second.bias, without.bias) == ([0, ORDER_BIAS], [ORDER_BIAS, 0], None)
    assert first.network.references.shape == (2, 28, 28, 3)


def test_boxes_are_those_of_the_window(task: Task) -> None:
    whole = prepared(task, replace(SETTINGS, crop="full", feather=3), CONFIG)
    assert (whole.window, whole.boxes, whole.feather) == ((0, 0, 120, 96), list(BOXES), 3)
    assert whole.seen.shape == whole.inputs.background.shape
    part = prepared(task, SETTINGS, replace(CONFIG, image_size=16))
    x0, y0, *_ = part.window
    assert [(a + x0, b + y0, c + x0, d + y0) for a, b, c, d in part.boxes] == list(BOXES)
    assert part.feather == 60, "a cell of 8 in a square of 16 pixels for 120"


def test_a_bad_sample_is_a_failure(task: Task) -> None:
    task.files.background.write_bytes(b"")
    assert prepare(task, SETTINGS, CONFIG) == Failure(
        "a", "unreadable_image", f"{task.files.background}: the file is empty"
    )


def test_what_changed_since_the_run_began_is_not_recorded_as_what_it_was(task: Task) -> None:
    data = task.files.background.read_bytes()
    task.files.background.write_bytes(data + b"more")
    found = prepare(task, SETTINGS, CONFIG)
    assert isinstance(found, Failure)
    assert (found.reason, found.detail) == ("changed_input", f"{task.files.background}: changed since this run began")
