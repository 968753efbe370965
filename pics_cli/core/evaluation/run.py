"""`pics eval`: all methods' pictures of each example are measured and recorded; results come from the records."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import torch

from pics_cli import __version__
from pics_cli.core.evaluation.distances import distances_to_truth
from pics_cli.core.evaluation.evaluator import (
    RECORDS,
    EvaluationJob,
    Evaluator,
    MeasureJob,
    describe_inputs,
    describe_methods,
    draw_gallery,
    measure_examples,
    open_evaluator,
    record_path,
)
from pics_cli.core.evaluation.example_sources import open_examples
from pics_cli.core.evaluation.methods import ModelFolder, describe_model, find_models
from pics_cli.core.evaluation.metrics import check_names, select_metrics
from pics_cli.core.evaluation.network_weights import NetworkWeights, find_weights
from pics_cli.core.evaluation.published import check_published, published_markdown
from pics_cli.core.evaluation.records import PER_SAMPLE, ExampleRecord, read_features, read_json, write_per_sample
from pics_cli.core.evaluation.report import REPORT, write_report
from pics_cli.core.evaluation.report_gallery import choose_examples
from pics_cli.core.evaluation.results import RESULTS, TABLE, summarize, write_results
from pics_cli.core.evaluation.source_base import ExampleSource, readable_examples
from pics_cli.core.model.devices import choose_device, choose_dtype
from pics_cli.core.recipes.base import digest, plain_recipe
from pics_cli.core.recipes.evaluation import recipe_identity
from pics_cli.core.runtime.files import write_json
from pics_cli.core.runtime.outputs import refuse_overwriting
from pics_cli.core.runtime.progress import Progress
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.requirements import Requirements, existing_folder, installed_versions, worker_memory
from pics_cli.core.runtime.resumable import ResumableFolder
from pics_cli.core.runtime.storage import file_names, map_files
from pics_cli.core.runtime.worker_group import Opened, OpenEngine, WorkerGroup, in_blocks, open_group
from pics_cli.errors import PicsError

SCHEMA = 1
IDENTITY = "begun.json"
OUTPUT_FILES = (RESULTS, TABLE, PER_SAMPLE, REPORT)
_RECORD_NAME = re.compile(r"[0-9]{6,}\.(json|npz)(\.[0-9]+\.tmp)?")
_TEMPORARY = re.compile(r"[0-9]{6,}\.(json|npz)\.[0-9]+\.tmp")
# Examples of a block, at most.
_LARGEST_BLOCK = 16
# Cases that names of pictures are compared with before the work.
_NAMED = 3
_LIBRARIES = ("numpy", "opencv-python-headless", "torch")


@dataclass
class EvaluationProgress(Progress):
    """Examples that this process has measured."""

    @property
    def detail(self) -> str:
        return self.activity or (f"{self.done_before:,} from earlier runs" if self.done_before else "")


def evaluate(
    job: EvaluationJob, ranks: Ranks, progress: Progress, open_engine: OpenEngine | None = None
) -> dict[str, Any]:
    """Measure examples that are not measured yet, and put all results together.

    Args:
        job: what to do.
        ranks: the processes of the run; each calls this.
        progress: of this process's share; updated as the work goes on.
        open_engine: whose workers measure; None: the ranks do.

    Returns:
        The contents of `results.json`.

    Raises:
        PicsError: an unknown metric; examples or models that do not exist; a folder with other results.
    """
    cv2.setNumThreads(1)
    recipe = job.recipe
    check_names(recipe.metrics)
    check_published(recipe.published)
    weights = ranks.run_local(lambda: find_weights(recipe.features))
    metrics, unavailable = select_metrics(recipe.metrics, {network.kind for network in weights})
    models = find_models(recipe, job.models, ranks, job.adapters)
    object_scale = recipe.fill or min((model.config.fill for model in models), default=1.0)
    source = ranks.run_local(lambda: open_examples(recipe, object_scale, job.external))
    ranks.run_local(lambda: _check_output(job, models, source))
    with open_group(ranks, progress, open_engine, lambda: _requirements(job, models, source, weights)) as group:
        device = group.call(choose_device, job.device, ranks.device)
        dtypes = [group.call(choose_dtype, job.dtype, device, model.config.full_size) for model in models]
        models = [replace(model, dtype=dtype) for model, dtype in zip(models, dtypes, strict=True)]
        run = _Evaluation(job, device, models, weights, metrics, unavailable, source)
        return run.run(group, object_scale, progress)


def _requirements(
    job: EvaluationJob, models: Sequence[ModelFolder], source: ExampleSource, weights: Sequence[NetworkWeights]
) -> Requirements:
    named = [path for model in models if (path := Path(model.name)).exists()]
    learnt = [path for network in weights if (path := Path(network.name)).exists()]
    adapters = [choice.path for choices in job.adapters.values() for choice in choices]
    files = [path for model in models for path in model.folder.glob("*/*.safetensors")]
    return Requirements(
        reads=[*source.folders, *(results.folder for results in job.external), *named, *learnt, *adapters],
        writes=[existing_folder(job.output)],
        versions=partial(installed_versions, _LIBRARIES),
        memory=worker_memory(sum(path.stat().st_size for path in files)),
    )


def _check_output(job: EvaluationJob, models: Sequence[ModelFolder], source: ExampleSource) -> None:
    """Refuse an output folder that the run reads pictures, samples or models from."""
    inputs = [("the pictures or samples in", folder) for folder in source.folders]
    inputs += [("--input", results.folder) for results in job.external]
    inputs += [("--model", model.folder) for model in models]
    refuse_overwriting([("--output", job.output)], inputs)


@dataclass
class _Evaluation:
    """The state of a run between its steps.

    Attributes:
        device: of the models and the networks of learnt metrics.
        metrics: names of those that are computed.
        unavailable: those that cannot be computed, and why.
    """

    job: EvaluationJob
    device: torch.device
    models: Sequence[ModelFolder]
    weights: Sequence[NetworkWeights]
    metrics: Sequence[str]
    unavailable: dict[str, str]
    source: ExampleSource

    @property
    def count(self) -> int:
        """Examples that are measured."""
        return min(self.job.recipe.limit or len(self.source), len(self.source))

    def run(self, group: WorkerGroup, object_scale: float, progress: Progress) -> dict[str, Any]:
        """Measure what is not measured yet, and put all results together."""
        ranks, work = group.ranks, self._work(object_scale)
        evaluator = Evaluator(work, self.models, self.weights, self.source)
        with contextlib.ExitStack() as stack:
            workers = group.engine is not None
            ranks.run_on_all(lambda: self.claim_folder(stack, workers) if ranks.rank == 0 else None)
            own = group.own(range(self.count))
            todo = [number for number in own if not self.is_measured(number)]
            if todo and ranks.rank == 0:
                self._compare_names()
            progress.total = len(own)
            progress.done = progress.done_before = len(own) - len(todo)
            opened = stack.enter_context(
                group.open(open_evaluator, work, here=lambda: contextlib.nullcontext(evaluator))
            )
            opened.run(measure_examples, todo, progress, in_blocks(todo, group.block_size(len(todo), _LARGEST_BLOCK)))
            return ranks.run_on_all(lambda: self.finish(opened, progress) if ranks.rank == 0 else {})[0]

    def _compare_names(self) -> None:
        if self.job.external:
            examples = readable_examples(self.source, range(min(_NAMED, self.count)))
            keys = [example.key for example in examples]
            for results in self.job.external:
                results.warn_of_other_names(keys)

    def _work(self, object_scale: float) -> MeasureJob:
        """What whoever measures needs."""
        identity = self.identity
        found = {key: identity[key] for key in ("data", "models", "features")}
        dtypes = tuple(model.dtype for model in self.models)
        return MeasureJob(self.job, str(self.device), dtypes, tuple(self.metrics), object_scale, found)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the first; only `names` may differ, for a model may have moved."""
        inputs = describe_inputs(self.models, self.weights, self.source, self.device)
        return {
            "schema": SCHEMA,
            "recipe": {**recipe_identity(self.job.recipe), "metrics": list(self.metrics)},
            "data": inputs["data"],
            "models": inputs["models"],
            "names": [describe_model(model, self.device)["name"] for model in self.models],
            "features": inputs["features"],
            "peers": [results.name for results in self.job.external],
            "versions": {
                "pics": __version__,
                **{name: version(name) for name in _LIBRARIES},
                "cpu": platform.machine(),
            },
        }

    def claim_folder(self, stack: contextlib.ExitStack, workers: bool) -> None:
        """Be the output folder's one writer until the stack closes, if what it holds is of this kind.

        Args:
            stack: closed when the run ends.
            workers: of an engine write into it, too.

        Raises:
            PicsError: it was begun otherwise, or another process writes to it.
        """
        output, path = self.job.output, self.job.output / IDENTITY
        if self.job.resume and not path.exists():
            raise PicsError(f"--resume: nothing was begun in {output}", "leave out --resume, or name another --output")
        folder = ResumableFolder(output, "--output", replace="begin anew with --overwrite")
        stack.enter_context(folder.hold(RECORDS, temporaries=_TEMPORARY, workers=workers))
        recorded = read_json(path) if path.exists() else None
        present, records = file_names(output), file_names(output / RECORDS)
        contents = [name for name in OUTPUT_FILES if name in present]
        contents += [RECORDS] if records else []
        foreign = f"{contents[0]}, which pics eval did not begin" if contents else None
        compared = {key: value for key, value in self.identity.items() if key != "names"}
        if not folder.resumes(recorded, compared, foreign, self.job.overwrite):
            for name in OUTPUT_FILES:  # first: they are of the records that are removed now
                (output / name).unlink(missing_ok=True)
            for old in records:
                if _RECORD_NAME.fullmatch(old):
                    (output / RECORDS / old).unlink()
            write_json(path, self.identity)

    def record_path(self, number: int) -> Path:
        """The file of an example's record."""
        return record_path(self.job.output, number)

    @cached_property
    def _recorded(self) -> set[str]:
        """Files of the folder of records when the work begins."""
        return file_names(self.job.output / RECORDS)

    def is_measured(self, number: int) -> bool:
        """Whether an example has a record, made with the external results that exist now."""
        path = self.record_path(number)
        if not (self.job.external and path.name in self._recorded):
            return path.name in self._recorded
        record = ExampleRecord.read(path)
        return record.bad is not None or all(
            record.peers.get(results.name) == results.sha256(record.key) for results in self.job.external
        )

    def finish(self, opened: Opened[Evaluator], progress: Progress) -> dict[str, Any]:
        """Results from the records of all examples, and their files."""
        output, metrics = self.job.output, self.metrics
        records = list(map_files(ExampleRecord.read, [self.record_path(number) for number in range(self.count)]))
        good = [record for record in records if record.bad is None]
        progress.activity = "report"
        names, settings = opened.ask(describe_methods)
        results = summarize(records, names, metrics, self._provenance(settings))
        results["unavailable"] = self.unavailable
        encoders = [weights for weights in self.weights if weights.kind != "lpips"]  # LPIPS compares pairs, not sets
        paths = [self.record_path(record.number) for record in good] if encoders else []
        features = list(map_files(read_features, paths))
        results["sets"] = distances_to_truth(features, results["methods"], encoders, self.job.recipe.seed)
        write_per_sample(output, records, metrics)
        chosen = choose_examples(good, results["methods"], metrics)
        write_report(output, results, good, opened.ask(draw_gallery, chosen))
        write_results(output, results, published_markdown(results))  # last: where they exist, the rest is complete
        progress.activity = ""
        return results

    def _provenance(self, settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
        identity = self.identity
        models, names = identity["models"].values(), identity["names"]
        contents = self.source.provenance.get("contents")
        leaks = [  # of models that were trained on the very samples they are measured by
            f"LEAK: {model.name} was trained on shards of these names and numbers of samples, and of the same "
            "contents where manifests say them (trained_on in its pics.json): of what it has seen, metrics say nothing"
            for model in self.models
            if contents in model.config.trained_on
        ]
        return {
            "name": self.job.recipe.name,
            "recipe_hash": digest(identity["recipe"]),
            "recipe": plain_recipe(self.job.recipe),
            "data": identity["data"],
            "cases": self.count,
            "models": [{**model, "name": name} for model, name in zip(models, names, strict=True)],
            "computed": settings,
            "features": [
                {**entry, "name": weights.name}
                for entry, weights in zip(identity["features"], self.weights, strict=True)
            ],
            "peers": identity["peers"],
            "versions": identity["versions"],
            "sight": "descriptor of colour and edges (pics_cli/core/evaluation/descriptor.py), no weights",
            "warnings": [*self.source.warnings, *leaks],
        }
