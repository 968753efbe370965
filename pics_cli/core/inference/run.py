"""`pics infer`: plan, composite what is missing, and report; resumable, over any number of processes."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pics_cli.core.inference.cutout import Cutout, ReferenceCutter
from pics_cli.core.inference.inputs import SampleFiles
from pics_cli.core.inference.pick import pick_path, read_pick, read_ranks
from pics_cli.core.inference.plan import InferenceJob, InferencePlan, Task, make_plan, sample_id
from pics_cli.core.inference.record import model_fingerprint, model_record, settings_record, write_manifest
from pics_cli.core.inference.sample import CompositeOptions
from pics_cli.core.inference.sheets import check_overview, write_overview
from pics_cli.core.inference.worker import LIBRARIES, InferenceProgress, InferenceReport, Worker, step_count
from pics_cli.core.model.adapters import Adapter, load_adapter, warn_of_other_base
from pics_cli.core.model.bundled import describe_bundled, is_bundled
from pics_cli.core.model.config import HintKind, ModelConfig
from pics_cli.core.model.devices import DTYPES, choose_device, choose_dtype, explain_out_of_memory
from pics_cli.core.model.find_model import find_model, find_model_together
from pics_cli.core.runtime.files import load_json, read_file
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.requirements import Requirements, existing_folder, installed_versions, worker_memory
from pics_cli.core.runtime.worker_group import OpenEngine, WorkerGroup, in_blocks, open_group
from pics_cli.errors import FAILED, PicsError

if TYPE_CHECKING:
    from pics_cli.core.model.pics_model import PicsModel

logger = logging.getLogger(__name__)

_TEMPORARY = re.compile(
    r"(?:composed_.+\.(?:png|jpg|webp|json)|grid_.+\.png|layers_.+\.ora|.+_(?:regions|alpha|routing)\.png|manifest\.jsonl)"
    r"\.\d+\.tmp",
    re.DOTALL,
)
# Bytes of weights below which nothing is gained by keeping them off a GPU: its libraries alone take more.
_SMALL_MODEL = 128_000_000
# Batches of a block of samples, at most.
_LARGEST_BLOCK = 16


def infer(
    job: InferenceJob, ranks: Ranks, progress: InferenceProgress, open_engine: OpenEngine | None = None
) -> InferenceReport:
    """Composite what is missing in the output folder.

    Args:
        job: what to do.
        ranks: the processes of the run; each calls this.
        progress: of this process's share; updated as the work goes on.
        open_engine: whose workers do the samples; None: the ranks do.

    Returns:
        How it went, over all processes.

    Raises:
        PicsError: no such model, a folder that holds pictures made otherwise or belongs to another writer, out of
            memory, disk full. Samples that cannot be composited are in the report instead.
    """
    with open_group(ranks, progress, open_engine, lambda: _requirements(job, progress)) as group:
        return _infer(job, group, progress)


def _infer(job: InferenceJob, group: WorkerGroup, progress: InferenceProgress) -> InferenceReport:
    ranks = group.ranks
    device = ranks.run_local(lambda: _choose_device(job, ranks, group))
    folder = find_model_together(job.model, ranks, progress)
    model = ranks.run_local(lambda: choose_model(job, device, folder, group))
    if ranks.rank == 0:
        warn_of_other_base(model.adapters, job.model, model.fingerprint)
    options = job.options.resolve(model.config)
    if is_bundled(job.model):
        logger.info(describe_bundled(model.config.image_size))
    if options.guidance is not None and options.guidance > model.config.guidance == 1:
        logger.warning(
            "--guidance %g: this model is meant to go without (1): twice the work, not better", options.guidance
        )
    cutout = ranks.run_local(lambda: group.call(describe_cutouts, job.cutout, model.config.hint, device))
    common = common_record(job, options, model, cutout)
    output = job.folder.hold("composed", temporaries=_TEMPORARY, workers=group.engine is not None)
    with contextlib.ExitStack() as stack:
        ranks.run_local(lambda: stack.enter_context(output) if ranks.rank == 0 else None)
        plan = make_plan(job, common, ranks)
        _log_plan(plan, job)
        report = InferenceReport(len(job.samples), plan.finished, failures=list(plan.failures))
        if ranks.rank == 0:  # after the plan, which refuses folders made otherwise
            stack.callback(lambda: write_manifest(job.output, job.output / "composed", read_ranks(job.output)))
        if plan.tasks:
            _warn_of_equal_candidates(job, options, model.config, plan)
            _do_tasks(group, job, options, common, model, plan.tasks, progress, report)
        # By one process, when all are done: pictures of every process and of earlier runs are in it.
        ranks.run_local(lambda: write_overview(job) if job.sheet is not None and ranks.rank == 0 else None)
    if job.pick is not None:
        paths = [pick_path(job.output, sample_id(sample)) for sample in job.samples]
        report.picks = [pick for pick in map(read_pick, paths) if pick is not None]
    report.failures.sort()
    if report.changed:
        raise PicsError(
            f"{report.changed:,} pixels changed outside the regions, which must be none", "please report it", FAILED
        )
    if report.differing:
        raise PicsError(
            f"layers recombine: {report.differing:,} values differ, which must be none", "please report it", FAILED
        )
    return report


def _requirements(job: InferenceJob, progress: InferenceProgress) -> Requirements:
    folder = find_model(job.model, progress)
    samples = {sample.parent for sample in job.samples if not isinstance(sample, SampleFiles)}
    files = [path for sample in job.samples if isinstance(sample, SampleFiles) for path in sample.parts().values()]
    model = [] if is_bundled(job.model) or not Path(job.model).exists() else [Path(job.model)]
    return Requirements(
        reads=[*sorted(samples, key=str), *files, *model, *(adapter.path for adapter in job.adapters)],
        writes=[existing_folder(job.output)],
        versions=partial(installed_versions, LIBRARIES),
        memory=worker_memory(sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))),
    )


@dataclass(frozen=True)
class ChosenModel:
    """A model's folder and configuration, and how it is to be loaded."""

    folder: Path
    config: ModelConfig
    device: torch.device
    dtype: torch.dtype
    fingerprint: str
    adapters: tuple[Adapter, ...]


def _choose_device(job: InferenceJob, ranks: Ranks, group: WorkerGroup) -> torch.device:
    check_overview(job)
    return group.call(choose_device, job.device, ranks.device)


def choose_model(
    job: InferenceJob, device: torch.device, folder: Path, group: WorkerGroup | None = None
) -> ChosenModel:
    """What a job's model is and how it is to be loaded; nothing of it is loaded yet, but adapters are.

    Args:
        job: what is asked for.
        device: where it will run.
        folder: of the model.
        group: where it will run; None: in this process.

    Raises:
        PicsError: a memory mode, configuration or adapter that will not do.
    """
    check_memory_mode(job.memory, folder, job.model)
    config = ModelConfig.load(folder)
    adapters, fingerprint = tuple(map(load_adapter, job.adapters)), model_fingerprint(folder)
    dtype = (group or WorkerGroup(Ranks())).call(choose_dtype, job.dtype, device, config.full_size)
    return ChosenModel(folder, config, device, dtype, fingerprint, adapters)


def describe_cutouts(cutout: Cutout, hint: HintKind, device: torch.device) -> str:
    """What decides the pixels of cut-outs made in this process; see `ReferenceCutter`."""
    return ReferenceCutter(cutout, hint, device).description


def common_record(job: InferenceJob, options: CompositeOptions, model: ChosenModel, cutout: str) -> dict[str, Any]:
    """What the records of all of a job's pictures hold.

    Args:
        job: what is asked for.
        options: of the job, resolved.
        model: that makes them.
        cutout: what decides the pixels of cut-outs.
    """
    return {
        "seed": options.seed,
        "model": model_record(job.model, model.fingerprint, model.adapters),
        "settings": settings_record(options, job.order, model.dtype, cutout, job.region),
    }


def check_memory_mode(memory: str, folder: Path, name: str) -> None:
    """Refuse to keep the weights of a very small model off the GPU.

    Such modes trade speed for memory of weights. A model of pixels with a few million parameters takes nearly all of
    its memory for activations, which no mode moves.

    Args:
        memory: value of `--memory`.
        folder: of the model.
        name: what the user calls it.

    Raises:
        PicsError: the mode is of no use for this model.
    """
    if memory not in ("sequential", "offload"):
        return
    try:
        kind = load_json(read_file(folder / "vae/config.json")).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return  # loading the model reports what is wrong with it
    size = sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))
    if kind == "PixelAutoencoder" and size < _SMALL_MODEL:
        raise PicsError(
            f"--memory {memory}: of no use for {name}, which has {size / 1e6:,.1f} MB of weights and none in its "
            "autoencoder: it would only be slower",
            "leave out --memory, or take --memory resident; it is meant for full-size models",
        )


def _log_plan(plan: InferencePlan, job: InferenceJob) -> None:
    for line in plan.damaged:
        logger.warning("%s: made again", line)
    if plan.unexplained:
        logger.warning(
            "%d finished samples have no explanation; --overwrite makes them again with one", plan.unexplained
        )
    if plan.unlayered:
        logger.info("%d finished pictures have no layers: they are made again, with them", plan.unlayered)
    if job.explain and job.options.mode == "sequential":
        logger.warning("one object at a time knows no overlaps: --explain draws the regions alone")


@dataclass(frozen=True)
class TaskJob:
    """What a process needs to composite tasks that it is given.

    Attributes:
        job: without its samples; with the device and the precision that were settled.
        options: of the job, resolved.
        common: what every record holds; see `common_record`.
    """

    job: InferenceJob
    options: CompositeOptions
    common: dict[str, Any]


class Compositor:
    """A model, loaded when a picture is to be made, and what cuts out its references."""

    def __init__(self, work: TaskJob, chosen: ChosenModel) -> None:
        self.work, self.chosen = work, chosen
        self.cutter = ReferenceCutter(work.job.cutout, chosen.config.hint, chosen.device)

    @cached_property
    def model(self) -> PicsModel:
        """The model on its device."""
        model = load_model(self.chosen, self.work.job.memory)
        if self.work.job.compile:
            model.compile()
        return model


@contextlib.contextmanager
def open_compositor(work: TaskJob) -> Iterator[Compositor]:
    """In a process that knows no more than the job: choose its model and look whether it is the same.

    Raises:
        PicsError: as `choose_model`; a model, an adapter or a tool for cut-outs that is not the job's.
    """
    job = work.job
    chosen = choose_model(job, choose_device(job.device), find_model(job.model))
    compositor = Compositor(work, chosen)
    found = common_record(job, work.options, chosen, compositor.cutter.description)
    if other := [key for key in found if found[key] != work.common[key]]:
        shown = "; ".join(f"{key} {json.dumps(found[key])}, not {json.dumps(work.common[key])}" for key in other)
        raise PicsError(
            f"{socket.gethostname()} would make other pictures than this job began with: {shown}",
            "have all machines see the same models, adapters and checkpoints",
        )
    yield compositor


def _do_tasks(
    group: WorkerGroup,
    job: InferenceJob,
    options: CompositeOptions,
    common: dict[str, Any],
    model: ChosenModel,
    tasks: Sequence[Task],
    progress: InferenceProgress,
    report: InferenceReport,
) -> None:
    """Have all tasks done, and add to the report."""
    precision = next(name for name, dtype in DTYPES.items() if dtype == model.dtype)
    work = TaskJob(replace(job, samples=(), device=str(model.device), dtype=precision), options, common)
    # Batches are cut as one process does.
    size = job.batch_size * group.block_size(-(-len(tasks) // job.batch_size), _LARGEST_BLOCK)
    blocks = in_blocks(tasks, size, lambda task: (len(task.files.objects), len(task.candidates)))
    own = group.own(tasks)
    if group.engine is not None:
        progress.total = sum(step_count(task, options, model.config) for task in own)
        progress.total_pictures = sum(len(task.candidates) for task in own)
        progress.started = time.monotonic()
    with group.open(open_compositor, work, bool(own), lambda: nullcontext(Compositor(work, model))) as compositor:
        compositor.run(composite_tasks, own, progress, blocks, report.add)


def composite_tasks(compositor: Compositor, tasks: Sequence[Task], progress: InferenceProgress) -> InferenceReport:
    """Make and write what tasks lack.

    Raises:
        PicsError: out of memory, disk full.
    """
    work, chosen = compositor.work, compositor.chosen
    worker = Worker(work.job, work.options, work.common, compositor.cutter, tasks, progress)
    if any(task.candidates for task in tasks):
        with explain_out_of_memory(chosen.device, lambda: cheaper_flags(work.job, chosen.device)):
            worker.composite_all(compositor.model)
    worker.finish_samples(chosen.config)
    return worker.report


def _warn_of_equal_candidates(
    job: InferenceJob, options: CompositeOptions, config: ModelConfig, plan: InferencePlan
) -> None:
    steps, made = options.steps or config.steps, any(task.candidates for task in plan.tasks)
    if made and job.num > 1 and steps == 1 and config.noise_schedule == "zero_terminal_snr" and not config.shadows:
        logger.warning("--num %d: this model starts from no noise: a sample's candidates are alike", job.num)


def load_model(chosen: ChosenModel, memory: str) -> PicsModel:
    """Load a model and its adapters; `memory`: value of `--memory`."""
    # Imported here: where all pictures are finished, it saves seconds of importing diffusers and transformers.
    from pics_cli.core.model.pics_model import PicsModel

    return PicsModel.from_pretrained(
        chosen.folder, dtype=chosen.dtype, device=chosen.device, memory=memory, adapters=chosen.adapters
    )


def cheaper_flags(job: InferenceJob, device: torch.device) -> str:
    """Advice on flags with which this job needs less memory."""
    flags = []
    if job.batch_size > 1:
        flags.append("--batch-size 1")
    if job.num > 1:
        flags.append("a smaller --num (candidates of later runs differ by --seed)")
    if device.type != "cpu":
        if not is_bundled(job.model):  # of whose memory next to nothing is weights that could lie elsewhere
            modes = {"sequential": ["--memory offload"], "offload": []}
            flags += modes.get(job.memory, ["--memory sequential", "--memory offload"])
        if job.dtype == "fp32":
            flags.append("--dtype bf16")
        return f"try {', then '.join(flags or ['--device cpu'])}; what is finished is kept"
    return f"try {', then '.join([*flags, 'closing other programs'])}; what is finished is kept"
