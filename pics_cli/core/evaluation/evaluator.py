"""Measures examples by all methods and records them, with models and networks that a process has opened once."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import torch

from pics_cli.core.evaluation.appearance_metrics import ReferenceGallery, build_reference_gallery
from pics_cli.core.evaluation.example_sources import open_examples
from pics_cli.core.evaluation.external_results import ExternalResults
from pics_cli.core.evaluation.measure import measure_example
from pics_cli.core.evaluation.methods import Method, ModelFolder, describe_model, find_models, open_methods
from pics_cli.core.evaluation.network_weights import NetworkWeights, find_weights
from pics_cli.core.evaluation.networks import ImageEncoder, Inception, Lpips, open_network
from pics_cli.core.evaluation.records import ExampleRecord, write_features
from pics_cli.core.evaluation.report_gallery import GalleryEntry, Reason, build_gallery
from pics_cli.core.evaluation.source_base import ExampleSource
from pics_cli.core.model.adapters import AdapterChoice
from pics_cli.core.model.devices import choose_device
from pics_cli.core.recipes.evaluation import EvaluationRecipe
from pics_cli.core.runtime.progress import Progress
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.errors import PicsError

RECORDS = "cases"


@dataclass(frozen=True)
class EvaluationJob:
    """Examples to be composited by some methods and measured.

    Attributes:
        recipe: examples, methods and metrics.
        output: folder for the results.
        models: folder, repository or name of the bundled one, by the label of its methods; the first's is empty.
        adapters: added to the weights of these models, likewise.
        external: pictures of other methods, measured beside.
        device, dtype: as on the command line.
        overwrite: begin anew where the folder holds other results.
        resume: only go on with what was begun in the folder.
    """

    recipe: EvaluationRecipe
    output: Path
    models: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, list[AdapterChoice]] = field(default_factory=dict)
    external: tuple[ExternalResults, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    overwrite: bool = False
    resume: bool = False


@dataclass(frozen=True)
class MeasureJob:
    """What a process needs to measure examples, whose numbers it is given.

    Attributes:
        job: of the run.
        device: of the models and the networks of learnt metrics, by its name.
        dtypes: that the models compute in, in their order.
        metrics: names of those that are computed.
        object_scale: share of a region's sides that an object takes.
        found: what the run is about, as it records it: its data, models, and weights of learnt metrics.
    """

    job: EvaluationJob
    device: str
    dtypes: tuple[torch.dtype, ...]
    metrics: tuple[str, ...]
    object_scale: float
    found: Mapping[str, Any]


class Evaluator:
    """Examples, and what measures them; models and networks are loaded when first asked for."""

    def __init__(
        self,
        work: MeasureJob,
        models: Sequence[ModelFolder],
        weights: Sequence[NetworkWeights],
        source: ExampleSource,
    ) -> None:
        self.work, self.models, self.weights, self.source = work, models, weights, source
        self.device = torch.device(work.device)

    @cached_property
    def methods(self) -> tuple[dict[str, Method], dict[str, dict[str, Any]]]:
        """Methods by name, and settings of the models."""
        job = self.work.job
        return open_methods(job.recipe, self.models, job.external, self.device)

    @cached_property
    def networks(self) -> list[ImageEncoder | Inception | Lpips]:
        """Networks of learnt metrics."""
        return [open_network(weights, self.device) for weights in self.weights]

    @cached_property
    def gallery(self) -> ReferenceGallery:
        """References that `identity` tells an object's own from."""
        distractors = self.source.distractors() if "identity" in self.work.metrics else []
        return build_reference_gallery(distractors, self.work.job.recipe.seed)


@contextlib.contextmanager
def open_evaluator(work: MeasureJob) -> Iterator[Evaluator]:
    """In a process that knows no more than the job: find all of it, and look whether it is the same.

    Raises:
        PicsError: a model or examples that do not exist, or are not the job's.
    """
    cv2.setNumThreads(1)
    job, recipe = work.job, work.job.recipe
    device = choose_device(work.device)
    found = find_models(recipe, job.models, Ranks(), job.adapters)
    models = [replace(model, dtype=dtype) for model, dtype in zip(found, work.dtypes, strict=True)]
    weights = find_weights(recipe.features)
    source = open_examples(recipe, work.object_scale, job.external)
    own = describe_inputs(models, weights, source, device)
    if other := [key for key, value in own.items() if value != work.found[key]]:
        raise PicsError(
            f"{socket.gethostname()} would measure others than this job began with: {', '.join(other)} differ",
            "have all machines see the same examples, models and weights",
        )
    yield Evaluator(work, models, weights, source)


def describe_inputs(
    models: Sequence[ModelFolder], weights: Sequence[NetworkWeights], source: ExampleSource, device: torch.device
) -> dict[str, Any]:
    """What is measured by what, as plain data; no paths, which may change."""
    described = [describe_model(model, device) for model in models]
    return {
        "data": json.loads(json.dumps(dict(source.provenance))),
        "models": {
            str(number): {key: value for key, value in model.items() if key != "name"}
            for number, model in enumerate(described)
        },
        "features": [{"kind": network.kind, "weights": network.sha256} for network in weights],
    }


def measure_examples(evaluator: Evaluator, numbers: Sequence[int], progress: Progress) -> int:
    """Measure examples and write their records.

    Returns:
        How many.
    """
    work = evaluator.work
    progress.activity = "reading the model" if evaluator.models else ""
    methods, _ = evaluator.methods
    networks = evaluator.networks
    progress.activity = "references to tell apart from"
    gallery = evaluator.gallery
    progress.activity = ""
    for number in numbers:
        reverse = number % work.job.recipe.reverse_every == 0
        record, features = measure_example(evaluator.source, number, methods, gallery, work.metrics, networks, reverse)
        path = record_path(work.job.output, number)
        if features:
            write_features(path, features)
        record.write(path)
        progress.done += 1
    return len(numbers)


def record_path(output: Path, number: int) -> Path:
    """The file of an example's record."""
    return output / RECORDS / f"{number:06d}.json"


def describe_methods(evaluator: Evaluator) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Names of the methods, and settings of the models, by label."""
    methods, settings = evaluator.methods
    return list(methods), settings


def draw_gallery(evaluator: Evaluator, chosen: Sequence[tuple[dict[str, Reason], ExampleRecord]]) -> list[GalleryEntry]:
    """Examples that were chosen for the report, with the pictures of all methods."""
    return build_gallery(evaluator.source, chosen, evaluator.methods[0], evaluator.work.metrics)
