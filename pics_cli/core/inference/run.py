"""Composite samples: plan, denoise batch by batch, put back, write; resumable, over any number of processes."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from pics_cli import __version__
from pics_cli.core.inference.bundled import refuse_memory
from pics_cli.core.inference.inputs import decode, read_parts
from pics_cli.core.inference.job import Failure, Job, Progress, Report
from pics_cli.core.inference.memory import memory_told
from pics_cli.core.inference.plan import Plan, Task, make_plan
from pics_cli.core.inference.record import model_fingerprint, write_manifest
from pics_cli.core.inference.settings import Settings
from pics_cli.core.inference.sheets import check_overview, write_grid, write_overview
from pics_cli.core.model.bundled import bundled_model, describe_bundled, is_bundled
from pics_cli.core.model.config import DOWNLOAD_PATTERNS, ModelConfig
from pics_cli.core.model.devices import DTYPES, choose_device, choose_dtype
from pics_cli.core.model.hub import snapshot
from pics_cli.core.model.schedulers import SCHEDULERS
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.resumable import ResumableFolder
from pics_cli.errors import FAILED, BadSample, PicsError

_TEMPORARY = re.compile(
    r"(?:composed_.+\.png|grid_.+\.png|.+_(?:regions|alpha|routing)\.png|manifest\.jsonl)\.\d+\.tmp", re.DOTALL
)


def infer(job: Job, ranks: Ranks, progress: Progress, note: Callable[[str], None]) -> Report:
    """Composite what is missing in the output folder.

    Args:
        job: what to do.
        ranks: the processes that share it; each calls this.
        progress: of this process's share; updated as the work goes on.
        note: told single lines worth reading.

    Returns:
        How it went, over all processes.

    Raises:
        PicsError: no such model, a folder that holds pictures made otherwise or belongs to another writer, out of
            memory, disk full. Samples that are at fault themselves are in the report instead.
    """
    folder, config, device, dtype = ranks.run_on_all(lambda: _look_at_model(job, ranks))[ranks.rank]
    settings = resolve(job, config, dtype)
    if is_bundled(job.model):
        note(describe_bundled(config.image_size))
    if settings.guidance > config.guidance == 1:
        note(f"--guidance {settings.guidance:g}: this model is meant to go without (1): twice the work, not better")
    common = {
        "seed": job.seed,
        "model": {"name": job.model, "fingerprint": model_fingerprint(folder)},
        "settings": {**asdict(settings), "order": list(job.order) if isinstance(job.order, tuple) else job.order},
    }
    output = ResumableFolder(job.output, "--output", "made").hold("composed", temporaries=_TEMPORARY)
    with contextlib.ExitStack() as stack:
        ranks.run_on_all(lambda: stack.enter_context(output) if ranks.rank == 0 else None)
        plan = make_plan(job, common, ranks)
        _tell(plan, job, note)
        report = Report(len(job.samples), plan.there, failures=list(plan.failures))
        if ranks.rank == 0:  # after the plan: what stood in the way has been refused
            stack.callback(write_manifest, job.output, job.output / "composed")
        if plan.tasks:
            mine = plan.tasks[ranks.rank :: ranks.size]
            for share in ranks.run_on_all(lambda: _work(job, settings, mine, progress, (folder, dtype, device))):
                report.add(share)
        # By one, when all are done: pictures of every process and of earlier runs are in it.
        ranks.run_on_all(lambda: write_overview(job, note) if job.sheet is not None and ranks.rank == 0 else None)
    report.failures.sort()
    if report.changed:
        raise PicsError(
            f"{report.changed:,} pixels changed outside the regions, which must be none", "please report it", FAILED
        )
    return report


def resolve(job: Job, config: ModelConfig, dtype: torch.dtype) -> Settings:
    """The job's settings, with what was left open taken from the model.

    Raises:
        PicsError: an unknown scheduler.
    """
    scheduler = job.scheduler or config.scheduler
    if scheduler not in SCHEDULERS:
        raise PicsError(f"--scheduler: got {scheduler}, expected one of {', '.join(SCHEDULERS)}")
    return Settings(
        steps=job.steps or config.steps,
        guidance=config.guidance if job.guidance is None else job.guidance,
        scheduler=scheduler,
        crop=job.crop,
        feather=job.feather,
        mode=job.mode,
        order=job.order,
        dtype=next(name for name, kind in DTYPES.items() if kind == dtype),
    )


def _look_at_model(job: Job, ranks: Ranks) -> tuple[Path, ModelConfig, torch.device, torch.dtype]:
    check_overview(job)
    device = choose_device(job.device, ranks.device)
    folder = bundled_model() if is_bundled(job.model) else snapshot(job.model, "--model", DOWNLOAD_PATTERNS)
    refuse_memory(job.memory, folder, job.model)
    config = ModelConfig.load(folder)
    return folder, config, device, choose_dtype(job.dtype, device, config.full_size)


def _tell(plan: Plan, job: Job, note: Callable[[str], None]) -> None:
    for line in plan.damaged:
        note(f"{line}: made again")
    if plan.unexplained:
        note(f"{plan.unexplained} finished samples have no explanation; --overwrite makes them again with one")
    if job.explain and job.mode == "sequential":
        note("one object at a time knows no overlaps: --explain draws the regions alone")


def _work(
    job: Job,
    settings: Settings,
    tasks: Sequence[Task],
    progress: Progress,
    model: tuple[Path, torch.dtype, torch.device],
) -> Report:
    """A process's share of the tasks."""
    folder, dtype, device = model
    report = Report()
    making = [task for task in tasks if task.candidates]
    if making:
        # Where all pictures are there, seconds of importing diffusers and transformers are spared.
        from pics_cli.core.inference.batch import Compositor
        from pics_cli.core.model.pics_model import PicsModel

        with memory_told(job, device):
            pipeline = PicsModel.from_pretrained(folder, dtype=dtype, device=device, memory=job.memory)
            if job.compile:
                pipeline.compile()
            Compositor(job, settings, pipeline, progress, report, _versions()).run(making)
    for task in tasks:
        if not task.candidates:  # only its grid is missing
            try:
                write_grid(job.output, task, decode(task.files, read_parts(task.files)), job.num)
            except BadSample as error:
                report.failures.append(Failure(task.files.id, error.reason, error.detail))
    return report


def _versions() -> dict[str, str]:
    libraries = ("torch", "diffusers", "transformers", "numpy", "opencv-python-headless")
    return {"pics": __version__, "python": platform.python_version(), **{name: version(name) for name in libraries}}
