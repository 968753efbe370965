"""From a job to a run that is ready to train: folder, data, model, optimiser, and where an earlier run stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType

from pics_cli.core.model.devices import choose_device, choose_dtype
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.training import TrainingRecipe, training_identity
from pics_cli.core.runtime.manifest import differences
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.resumable import ResumableFolder
from pics_cli.core.training import checkpoint
from pics_cli.core.training.checkpoint import Checkpoint
from pics_cli.core.training.data import find_sources, held_data, share_rows
from pics_cli.core.training.job import Job, Progress
from pics_cli.core.training.live import Run
from pics_cli.core.training.networks import Compositor
from pics_cli.core.training.objective import Step
from pics_cli.core.training.optimizer import Average, make_optimizer, set_up
from pics_cli.core.training.starting_model import Start, start_model
from pics_cli.core.training.state import State
from pics_cli.core.training.tracking import trackers
from pics_cli.errors import PicsError

_SUPPORTED = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)


def set_up_run(
    job: Job, ranks: Ranks, stack: contextlib.ExitStack, progress: Progress, note: Callable[[str], None]
) -> Run:
    """Get everything ready.

    Args:
        job: what to do.
        ranks: the processes that share it; each calls this.
        stack: gets what must be undone at the end.
        progress: told what goes on.
        note: told single lines worth reading.

    Raises:
        PicsError: see `run.train`.
    """
    recipe = job.recipe
    device = torch.device(ranks.device) if ranks.device else choose_device(job.device)
    log_with = trackers(recipe.log.wandb)
    progress.steps = recipe.steps
    first = ranks.rank == 0
    say = note if first else _silence
    progress.doing = "looking at the data"
    found_first = ranks.run_on_all(lambda: find_sources(job, say) if first else None)[0]
    assert found_first is not None
    sources = found_first
    for name, words in share_rows(sources):
        say(f"{name}: {words}")
    ranks.run_on_all(lambda: _claim(job, stack) if first else None)
    progress.doing = "loading the model"
    start = ranks.run_local(lambda: start_model(recipe, say))
    dtype = choose_dtype(recipe.precision, device, start.pipeline.config.full_size)
    accelerator = _accelerator(device, dtype, log_with, job.root)
    state, step = _model(recipe, start, accelerator, device, dtype)
    run = Run(job, ranks, accelerator, device, state, step, sources, {})
    found = ranks.run_on_all(lambda: _earlier(run, say) if first else None)[0]
    if found is not None:
        ranks.run_local(lambda: state.load(found, say))
        run.bad, run.looked, run.resumed = list(found.state["bad"]), int(found.state["looked"]), True
        run.saved = state.step if found.folder.parent == (job.root / checkpoint.FOLDER).resolve() else -1
        _tell_remapping(run, found, say)
    progress.step = progress.begun = state.step
    progress.doing = ""
    number = len(sources.held)
    wanted = set(range(ranks.rank, number, ranks.size)) | set(
        range(min(recipe.validation.sheet, number)) if first else ()
    )
    run.held = ranks.run_local(lambda: held_data(recipe, sources, state.start.pipeline, sorted(wanted), note))
    return run


def _claim(job: Job, stack: contextlib.ExitStack) -> None:
    """Make the folder, and be its only writer."""
    stack.callback(_remove_if_empty, job.root)
    stack.enter_context(ResumableFolder(job.root, "--root-dir").hold(checkpoint.FOLDER))
    checkpoint.remove_temporaries(job.root)


def _remove_if_empty(root: Path) -> None:
    """Leave no folder behind where a run did not even begin."""
    with contextlib.suppress(OSError):
        (root / checkpoint.FOLDER).rmdir()
        root.rmdir()


def _accelerator(device: torch.device, dtype: torch.dtype, log_with: list[str], root: Path) -> Accelerator:
    precision = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    if precision == "fp16" and device.type == "cpu":
        raise PicsError("precision: fp16 needs a GPU", "take fp32, or bf16 on a CPU that computes in it")
    # A batch without overlaps gives some experts no gradient.
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision,
        log_with=log_with,
        project_dir=str(root),
        kwargs_handlers=[parallel],
    )
    if accelerator.distributed_type not in _SUPPORTED:
        raise PicsError(
            f"accelerate launch: {accelerator.distributed_type.value} is not supported, only one process for each GPU",
            "leave its flag out, or make a plain configuration with `accelerate config`",
        )
    return accelerator


def _model(
    recipe: TrainingRecipe, start: Start, accelerator: Accelerator, device: torch.device, dtype: torch.dtype
) -> tuple[State, Step]:
    """The model where it is trained, its optimiser and its average."""
    pipeline = moved(start.pipeline, device)
    trained = set_up(pipeline, recipe.train, recipe.train_encoder, dtype)
    for network in (pipeline.unet, pipeline.controlnet):
        network.gradient_checkpointing = recipe.gradient_checkpointing
    network = accelerator.prepare(Compositor(pipeline))
    optimizer = accelerator.prepare(make_optimizer(trained, recipe.optimizer))
    average = Average(trained, recipe.ema) if recipe.ema.enabled else None
    state = State(start._replace(pipeline=pipeline), trained, optimizer, average, accelerator)
    return state, Step(pipeline, network, recipe.objective, dtype)


def moved(pipeline: PicsModel, device: torch.device) -> PicsModel:
    """The same model on another device."""
    parts: dict[str, Any] = dict(pipeline.parts)
    return PicsModel(pipeline.config, **parts, scheduler=pipeline.scheduler, device=device)


def _earlier(run: Run, say: Callable[[str], None]) -> Checkpoint | None:
    """The checkpoint to go on from; None: there is none, or none is wanted.

    Raises:
        PicsError: what is in the folder does not belong to this run.
    """
    job = run.job
    if job.resume == "none":
        if there := [folder.name for _, folder in checkpoint.found(job.root)]:
            raise PicsError(
                f"--resume none: {job.root} holds checkpoints of an earlier run ({there[-1]}, …)",
                "choose another --root-dir, or remove them",
            )
        return None
    if job.resume != "auto":
        found = checkpoint.read(Path(job.resume).resolve())
        checkpoint.check_facts(found)
        if later := [folder.name for step, folder in checkpoint.found(job.root) if step > found.step]:
            raise PicsError(
                f"--resume {job.resume}: {job.root} holds later checkpoints ({later[-1]}, …)",
                "choose another --root-dir for what comes now, or remove them",
            )
        for line in _differences(found, run):
            say(f"goes on otherwise than before: {line}")
        return found
    newest = checkpoint.newest(job.root.resolve(), say)
    if newest is not None:
        checkpoint.check_facts(newest)
        hint = f"give the same values, or choose another --root-dir; to go on with others: --resume {newest.folder}"
        ResumableFolder(job.root, "--root-dir").refuse(_differences(newest, run), hint)
    return newest


def _differences(found: Checkpoint, run: Run) -> list[str]:
    there = {**found.state["identity"], "recipe": training_identity(found.state["recipe"])}
    lines = differences(there, run.identity)
    if found.state["base"] != run.state.start.base:
        lines.append("the base model: other files")
    return lines


def _tell_remapping(run: Run, found: Checkpoint, say: Callable[[str], None]) -> None:
    was, here = found.state["precision"], run.accelerator.mixed_precision
    if was != here:
        say(f"precision was {was}, is {here}: the numbers will differ from those of an uninterrupted run")
    before, now = found.state["world"], run.world
    if before != now:
        was, here = (" × ".join(str(world[key]) for key in before) for world in (before, now))
        say(
            f"processes × batch × accumulation was {was}, is {here}: goes on at sample {run.state.position:,} "
            f"of the same order, as step {run.state.step + 1:,}"
        )


def _silence(_text: str) -> None:
    pass
