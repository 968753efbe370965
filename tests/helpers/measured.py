"""Metrics of pictures that tests make of examples, and examples to tell objects apart from."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable

import numpy as np

from pics_cli.core.evaluation.appearance_metrics import ReferenceGallery
from pics_cli.core.evaluation.composites import Composite, ExampleContext
from pics_cli.core.evaluation.examples import Example, draw_example
from pics_cli.core.evaluation.metrics import METRICS, compute_metrics
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.errors import PicsError

# Metrics of single pictures that need no weights.
OF_A_PICTURE = [name for name, metric in METRICS.items() if not metric.needs and name != "order_dependence"]


def metric_values(
    picture: np.ndarray, example: Example, gallery: ReferenceGallery, names: Iterable[str] = OF_A_PICTURE
) -> dict[str, float]:
    """Metrics by name; nan where the example has nothing to judge one by."""
    values = compute_metrics(Composite(picture, ExampleContext(example, gallery)), list(names))
    return {name: math.nan if value is None else value for name, value in values.items()}


def distractors(settings: SceneSettings, seed: int, object_scale: float) -> list[Example]:
    """24 scenes that are not measured, less those without room for their objects."""
    examples = []
    for number in range(10_000_000, 10_000_024):
        with contextlib.suppress(PicsError):
            examples.append(draw_example(settings, seed, number, object_scale))
    return examples
