"""What the model makes of samples that were held out, drawn in the middle of a training run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.training.networks import prepare_for_training
from pics_cli.core.training.validation import (
    ValidationSample,
    composite_samples,
    draw_validation_sheet,
    validation_sample,
)
from trainees import CORRECTING, LAYOUTS, batch_of, pipeline_of, small

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def samples(pipeline: PicsModel, count: int = 2) -> list[ValidationSample]:
    batch = batch_of(pipeline, LAYOUTS[:count])
    names = ("control_image", "target", "boxes", "content", "references")
    rows = ({name: batch[name][at].numpy() for name in names} for at in range(count))
    return [validation_sample(f"Set/{at}", row, None, "background") for at, row in enumerate(rows)]


def test_a_new_network_that_corrects_its_hint_paints_it() -> None:
    pipeline = small(stirred=False, **CORRECTING)
    some = samples(pipeline)
    for made, one in zip(composite_samples(pipeline, some, 0, 2), some, strict=True):
        np.testing.assert_array_equal(made, one.own["control_image"])


@pytest.mark.parametrize("kind", ["small", "tiny"])
def test_with_frozen_parts_in_bf16(kind: str) -> None:
    """As training leaves the model: in parts of two precisions, ready for the next step afterwards."""
    meaning: dict[str, Any] = {"prediction_type": "sample", "correct_hint": True}
    whole, half = pipeline_of(kind, **meaning), pipeline_of(kind, **meaning)
    trained = prepare_for_training(half, "experts", False, torch.bfloat16)
    expected = composite_samples(whole, samples(whole), 0, 2)
    with torch.autocast("cpu", torch.bfloat16):
        made = composite_samples(half, samples(half), 0, 2)
    for one, other in zip(made, expected, strict=True):
        assert one.dtype == np.uint8
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95
    half.forget()
    assert all(value.requires_grad and value.dtype == torch.float32 for value in trained.values())


def test_results_are_a_function_of_seed_and_key() -> None:
    pipeline = pipeline_of("small", prediction_type="sample")
    some = samples(pipeline)
    first, again, other = (composite_samples(pipeline, some, seed, 1) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert any((one != two).any() for one, two in zip(first, other, strict=True))
    np.testing.assert_array_equal(composite_samples(pipeline, some[1:], 0, 1)[0], first[1])


def test_drawn() -> None:
    """A row for each sample, wider than its four pictures; the arrays are left as they are."""
    pipeline = pipeline_of("small")
    some = samples(pipeline, 3)
    before = [one.own["control_image"].copy() for one in some]
    one, three = (
        draw_validation_sheet("mine, step 3", some[:n], [held.own["target"] for held in some[:n]]) for n in (1, 3)
    )
    assert one.dtype == np.uint8
    assert three.shape[1] >= one.shape[1] > 64 * 3
    assert three.shape[0] > 2.5 * one.shape[0] - 100
    assert all((held.own["control_image"] == kept).all() for held, kept in zip(some, before, strict=True))
