"""The run: cases one by one through all methods, a small file for each, results from these at the end."""

from __future__ import annotations

import contextlib
import json
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2

from pics_cli import __version__
from pics_cli.core.evaluation.distances import distances_of, save_features
from pics_cli.core.evaluation.example_sets import Cases, open_cases
from pics_cli.core.evaluation.image_encoders import Encoder, Found, find_all, opened
from pics_cli.core.evaluation.job import Job, Progress, Report
from pics_cli.core.evaluation.measure import measure, wanted
from pics_cli.core.evaluation.methods import Maker, makers, model_folders, model_records, peer_sha256
from pics_cli.core.evaluation.metrics import check_names, sight_of
from pics_cli.core.evaluation.published_networks import Backbone, Inception, Lpips
from pics_cli.core.evaluation.report import REPORT, choose, show, write_report
from pics_cli.core.evaluation.results import EACH as PER_SAMPLE
from pics_cli.core.evaluation.results import RESULTS, TABLE, results_of, write_each, write_results
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.devices import choose_device
from pics_cli.core.recipes.base import digest
from pics_cli.core.recipes.evaluation import plain_evaluation
from pics_cli.core.runtime.files import write_json
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.resumable import ResumableFolder
from pics_cli.errors import PicsError

SCHEMA = 1
EACH, BEGUN = "cases", "begun.json"
FILES = (RESULTS, TABLE, PER_SAMPLE, REPORT)
_OURS = re.compile(r"[0-9]{6,}\.(json|npz)(\.[0-9]+\.tmp)?")
# Of the recipe: more cases may be measured in a folder that was begun with fewer, wherever it lies.
_FREE = ("out", "limit", "name", "features")
_LIBRARIES = ("numpy", "opencv-python-headless", "scikit-image", "torch")


def evaluate(job: Job, ranks: Ranks, progress: Progress, note: Callable[[str], None]) -> Report:  # noqa: ARG001
    """Measure what is not measured yet, and put all of it together.

    Args:
        job: what to do.
        ranks: the processes that share it; each calls this.
        progress: updated as the work goes on.
        note: told single lines worth reading.

    Raises:
        PicsError: a figure that nobody knows; cases or models that are not there; a folder with other results.
    """
    cv2.setNumThreads(1)
    recipe = job.recipe
    check_names(recipe.metrics)
    seen_by = ranks.run_on_all(lambda: find_all(recipe.features))[ranks.rank]
    names, missing = wanted(recipe.metrics, {one.kind for one in seen_by})
    folders = ranks.run_on_all(lambda: model_folders(job))[ranks.rank]
    fill = recipe.fill or min((ModelConfig.load(folder).fill for folder in folders.values()), default=1.0)
    cases = ranks.run_local(lambda: open_cases(recipe, fill, job.peers))
    count = len(cases) if recipe.limit is None else min(recipe.limit, len(cases))
    identity = _identity(job, cases, model_records(job, folders, ranks.device), names, seen_by)
    with contextlib.ExitStack() as stack:
        ranks.run_on_all(lambda: _claim(job, identity, stack) if ranks.rank == 0 else None)
        mine = range(ranks.rank, count, ranks.size)
        todo = [number for number in mine if not _is_done(job, number)]
        progress.total, progress.before = len(mine), len(mine) - len(todo)
        progress.done = progress.before
        run = _Run(job, folders, seen_by, names, missing, identity, cases, count)

        def work() -> None:
            if not todo:
                return
            progress.doing = "reading the model" if folders else ""
            run.open(ranks.device)
            progress.doing = "references to tell apart from"
            sight = sight_of(cases.others(), recipe.seed)
            progress.doing = ""
            for number in todo:
                record, features = measure(cases, number, run.methods, sight, names, run.networks)
                if features:
                    save_features(_path(job, number), features)
                write_json(_path(job, number), record)
                progress.done += 1

        ranks.run_on_all(work)
        shares = ranks.all_gather((len(todo), progress.before))
        made, there = (sum(share[k] for share in shares) for k in (0, 1))
        results = ranks.run_on_all(lambda: _finish(run, progress, ranks.device) if ranks.rank == 0 else {})[0]
    return Report(results, made, there)


@dataclass
class _Run:
    """What a run is about, between its parts.

    Attributes:
        folders: of the models.
        found: networks of learnt figures.
        names: of the figures.
        missing: those that cannot be computed, and why.
        count: of the cases that are wanted.
        methods, settings: see `makers`; empty until they are opened.
        networks: likewise.
    """

    job: Job
    folders: dict[str, Path]
    found: list[Found | Backbone]
    names: list[str]
    missing: dict[str, str]
    identity: dict[str, Any]
    cases: Cases
    count: int
    methods: dict[str, Maker] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    networks: list[Encoder | Inception | Lpips] = field(default_factory=list)

    def open(self, device: str | None) -> None:
        """Get the methods ready, once."""
        if not self.methods:
            self.methods, self.settings = makers(self.job, self.folders, device)
            self.networks = [opened(one, choose_device(self.job.device, device)) for one in self.found]


def _finish(run: _Run, progress: Progress, device: str | None) -> dict[str, Any]:
    """Results from the records of all cases, and their files."""
    output, names = run.job.output, run.names
    records = [_read(_path(run.job, number)) for number in range(run.count)]
    progress.doing = "report"
    run.open(device)
    results = results_of(records, list(run.methods), names, _provenance(run))
    results["unavailable"] = run.missing
    results["sets"] = distances_of(run.job.output / EACH, records, results["methods"], run.found, run.job.recipe.seed)
    write_each(output, records, names)
    good = [record for record in records if "bad" not in record]
    chosen = choose(good, results["methods"][0], names)
    write_report(output, results, good, show(run.cases, chosen, run.methods, names))
    write_results(output, results)  # last: it says that the rest is there
    progress.doing = ""
    return results


def _path(job: Job, number: int) -> Path:
    return job.output / EACH / f"{number:06d}.json"


def _is_done(job: Job, number: int) -> bool:
    """Whether a case is measured, with the pictures of others that are there now."""
    path = _path(job, number)
    if not (job.peers and path.exists()):
        return path.exists()
    record = _read(path)
    return "bad" in record or all(
        record["peers"].get(peer.name) == peer_sha256(peer, record["key"]) for peer in job.peers
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PicsError(f"{path}: cannot be read: {error}", "remove it and run the same command again") from None
    return found


def _identity(
    job: Job, cases: Cases, models: list[dict[str, Any]], names: list[str], found: list[Found | Backbone]
) -> dict[str, Any]:
    """What a resumed run must share with the first."""
    recipe = {key: value for key, value in plain_evaluation(job.recipe).items() if key not in _FREE}
    if recipe["scenes"]:
        recipe["scenes"] = {key: value for key, value in recipe["scenes"].items() if key != "count"}
    recipe["pictures"] = bool(recipe["pictures"])
    if recipe["samples"]:
        recipe["samples"] = {"split": recipe["samples"]["split"]}  # what they hold is compared, not where they lie
    return {
        "schema": SCHEMA,
        "recipe": {**recipe, "metrics": names},
        "data": json.loads(json.dumps(dict(cases.provenance))),
        "models": {
            str(at): {key: value for key, value in one.items() if key != "name"} for at, one in enumerate(models)
        },
        "names": [one["name"] for one in models],
        "features": [{"kind": one.kind, "weights": one.sha256} for one in found],
        "peers": [peer.name for peer in job.peers],
        "versions": {"pics": __version__, **{name: version(name) for name in _LIBRARIES}, "cpu": platform.machine()},
    }


def _claim(job: Job, identity: dict[str, Any], stack: contextlib.ExitStack) -> None:
    """Be the folder's one writer, if what it holds is of this kind.

    Raises:
        PicsError: it was begun otherwise, or somebody else is at work in it.
    """
    if job.resume and not (job.output / BEGUN).exists():
        raise PicsError(f"--resume: nothing was begun in {job.output}", "leave out --resume, or name another --output")
    folder = ResumableFolder(job.output, "--output", replace="begin anew with --overwrite")
    stack.enter_context(folder.hold(EACH))
    path = job.output / BEGUN
    recorded = _read(path) if path.exists() else None
    found = next((name for name in (*FILES, EACH) if _holds(job.output / name)), None)
    foreign = None if found is None else f"{found}, which pics eval did not begin"
    own = {key: value for key, value in identity.items() if key != "names"}  # a model may lie elsewhere
    if not folder.resumes(recorded, own, foreign, job.overwrite):
        for name in FILES:  # first: they are of the records that go now
            (job.output / name).unlink(missing_ok=True)
        for old in (job.output / EACH).iterdir():
            if _OURS.fullmatch(old.name):
                old.unlink()
        write_json(path, identity)


def _holds(path: Path) -> bool:
    """Whether there is a file of that name, or a folder with something in it."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _provenance(run: _Run) -> dict[str, Any]:
    identity, cases = run.identity, run.cases
    return {
        "name": run.job.recipe.name,
        "recipe_hash": digest(identity["recipe"]),
        "recipe": plain_evaluation(run.job.recipe),
        "data": identity["data"],
        "cases": run.count,
        "models": [
            {**one, "name": name} for one, name in zip(identity["models"].values(), identity["names"], strict=True)
        ],
        "computed": run.settings,
        "features": [{**one, "name": found.name} for one, found in zip(identity["features"], run.found, strict=True)],
        "peers": identity["peers"],
        "versions": identity["versions"],
        "sight": "descriptor of colour and edges (pics_cli/core/evaluation/descriptor.py), no weights",
        "warnings": [*cases.warnings, *_leaks(run)],
    }


def _leaks(run: _Run) -> list[str]:
    """What is to be said of models that were trained on the very samples they are measured by."""
    contents = run.cases.provenance.get("contents")
    return [
        f"LEAK: {run.job.models[label]} was trained on shards of these names and numbers of samples, and of the same "
        "contents where manifests say them (trained_on in its pics.json): of what it has seen, figures say nothing"
        for label, folder in run.folders.items()
        if contents in ModelConfig.load(folder).trained_on
    ]
