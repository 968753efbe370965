"""`pics infer`: plan, composite what is missing, and report; resumable, over any number of processes."""

from __future__ import annotations

import contextlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pics_cli.core.inference.cutout import ReferenceCutter
from pics_cli.core.inference.pick import pick_path, read_pick, read_ranks
from pics_cli.core.inference.plan import InferenceJob, InferencePlan, make_plan, sample_id
from pics_cli.core.inference.record import model_fingerprint, model_record, settings_record, write_manifest
from pics_cli.core.inference.sample import CompositeOptions
from pics_cli.core.inference.sheets import check_overview, write_overview
from pics_cli.core.inference.worker import InferenceProgress, InferenceReport, Worker
from pics_cli.core.model.adapters import Adapter, load_adapter, warn_of_other_base
from pics_cli.core.model.bundled import describe_bundled, is_bundled
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.devices import choose_device, choose_dtype, explain_out_of_memory
from pics_cli.core.model.find_model import find_model_together
from pics_cli.core.runtime.files import load_json, read_file
from pics_cli.core.runtime.ranks import Ranks
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


def infer(job: InferenceJob, ranks: Ranks, progress: InferenceProgress) -> InferenceReport:
    """Composite what is missing in the output folder.

    Args:
        job: what to do.
        ranks: the processes that share it; each calls this.
        progress: of this process's share; updated as the work goes on.

    Returns:
        How it went, over all processes.

    Raises:
        PicsError: no such model, a folder that holds pictures made otherwise or belongs to another writer, out of
            memory, disk full. Samples that cannot be composited are in the report instead.
    """
    device = ranks.run_local(lambda: _choose_device(job, ranks))
    folder = find_model_together(job.model, ranks, progress)
    model = ranks.run_local(lambda: choose_model(job, ranks, device, folder))
    options = job.options.resolve(model.config)
    if is_bundled(job.model):
        logger.info(describe_bundled(model.config.image_size))
    if options.guidance is not None and options.guidance > model.config.guidance == 1:
        logger.warning(
            "--guidance %g: this model is meant to go without (1): twice the work, not better", options.guidance
        )
    cutter = ranks.run_local(lambda: ReferenceCutter(job.cutout, model.config.hint, model.device))
    common = common_record(job, options, model, cutter)
    output = job.folder.hold("composed", temporaries=_TEMPORARY)
    with contextlib.ExitStack() as stack:
        ranks.run_local(lambda: stack.enter_context(output) if ranks.rank == 0 else None)
        plan = make_plan(job, common, ranks)
        _log_plan(plan, job)
        report = InferenceReport(len(job.samples), plan.finished, failures=list(plan.failures))
        if ranks.rank == 0:  # after the plan, which refuses folders made otherwise
            stack.callback(lambda: write_manifest(job.output, job.output / "composed", read_ranks(job.output)))
        if plan.tasks:
            worker = Worker(job, options, common, cutter, plan.tasks[ranks.rank :: ranks.size], progress)
            for share in ranks.run_on_all(lambda: _run_tasks(worker, model)):
                report.add(share)
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


@dataclass(frozen=True)
class ChosenModel:
    """A model's folder and configuration, and how it is to be loaded."""

    folder: Path
    config: ModelConfig
    device: torch.device
    dtype: torch.dtype
    fingerprint: str
    adapters: tuple[Adapter, ...]


def _choose_device(job: InferenceJob, ranks: Ranks) -> torch.device:
    check_overview(job)
    return choose_device(job.device, ranks.device)


def choose_model(job: InferenceJob, ranks: Ranks, device: torch.device, folder: Path) -> ChosenModel:
    """What a job's model is and how it is to be loaded; nothing of it is loaded yet, but adapters are.

    Args:
        job: what is asked for.
        ranks: the processes; the first warns of adapters of another model.
        device: where it will run.
        folder: of the model.

    Raises:
        PicsError: a memory mode, configuration or adapter that will not do.
    """
    check_memory_mode(job.memory, folder, job.model)
    config = ModelConfig.load(folder)
    adapters, fingerprint = tuple(map(load_adapter, job.adapters)), model_fingerprint(folder)
    if ranks.rank == 0:
        warn_of_other_base(adapters, job.model, fingerprint)
    dtype = choose_dtype(job.dtype, device, config.full_size)
    return ChosenModel(folder, config, device, dtype, fingerprint, adapters)


def common_record(
    job: InferenceJob, options: CompositeOptions, model: ChosenModel, cutter: ReferenceCutter
) -> dict[str, Any]:
    """What the records of all of a job's pictures hold; `options`: the job's, resolved."""
    return {
        "seed": options.seed,
        "model": model_record(job.model, model.fingerprint, model.adapters),
        "settings": settings_record(options, job.order, model.dtype, cutter.description, job.region),
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


def _run_tasks(worker: Worker, chosen: ChosenModel) -> InferenceReport:
    """A process's share of the tasks."""
    job = worker.job
    if any(task.candidates for task in worker.tasks):
        with explain_out_of_memory(chosen.device, lambda: cheaper_flags(job, chosen.device)):
            model = load_model(chosen, job.memory)
            if job.compile:
                model.compile()
            config = model.config
            steps = worker.options.steps or config.steps
            if job.num > 1 and steps == 1 and config.noise_schedule == "zero_terminal_snr" and not config.shadows:
                logger.warning("--num %d: this model starts from no noise: a sample's candidates are alike", job.num)
            worker.composite_all(model)
    worker.finish_samples(chosen.config)
    return worker.report


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
