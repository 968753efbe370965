"""`pics train`: train the compositor from shards."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pics_cli.errors import PicsError

if TYPE_CHECKING:
    from pics_cli.console import State
    from pics_cli.core.training.job import Job, Progress, Report

# Seconds: a launcher that sees one process fail stops the others, so the one that speaks goes first.
_LINGER = 1.0


def train(
    recipe: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="Training recipe, or dataset recipe for that set alone.")
    ] = "joint",
    root_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of logs and checkpoints.  [default: the recipe's]")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Samples of one GPU at a time.")] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Optimiser steps in all.")] = None,
    learning_rate: Annotated[float | None, typer.Option(metavar="LR", help="At its highest.")] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="PATH|REPO", help="Stable Diffusion 2.1, or a model of pics, to start from."),
    ] = None,
    dinov2: Annotated[
        str | None, typer.Option(metavar="PATH|REPO|FILE", help="DINOv2 ViT-g/14, where the base is Stable Diffusion.")
    ] = None,
    data_root: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder that the recipe's shards are looked for in.")
    ] = None,
    limit_train_batches: Annotated[
        float | None, typer.Option(metavar="F", help="Share of every epoch that is used, above 0 to 1.")
    ] = None,
    logger_freq: Annotated[
        int | None, typer.Option(metavar="N", help="Steps between two validations with their sheet of samples.")
    ] = None,
    resume: Annotated[
        str,
        typer.Option(
            metavar="auto|PATH|none", help="auto: from the newest good checkpoint in the folder; none: from the start."
        ),
    ] = "auto",
    gpus: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Start N processes, one for each GPU (with --device cpu: on the CPU)."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|cuda:N", help="Where to compute.")] = "auto",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Train on those sets of the recipe that are there.")
    ] = False,
    allow_pipe: Annotated[
        bool, typer.Option("--allow-pipe", help="Run the commands of pipe: addresses among the shards.")
    ] = False,
    max_bad: Annotated[
        int | None, typer.Option(min=0, help="Stop above N unreadable samples.  [default: 1 %, at least 100]")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show recipe, data shares, trained parameters and memory; train nothing.")
    ] = False,
    preview: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw references as they are varied; train nothing.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the newest checkpoint as a model folder; train nothing.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any value of the recipe.")
    ] = None,
) -> None:
    """Train the compositor: DIR/checkpoints, DIR/samples, DIR/log.jsonl, DIR/tensorboard and, at the end, DIR/model.

    Run again to resume: the numbers are those of a run that was never stopped. `pics infer --model DIR/model` uses what
    was trained. Several GPUs: --gpus N, or `accelerate launch -m pics_cli train …`, or torchrun.
    """
    try:
        _check([("--plan", plan), ("--preview", preview), ("--export", export)], gpus, resume, preview)
        from pics_cli.core.recipes.base import Override, parse_override
        from pics_cli.core.recipes.training import load_training

        flags: dict[str, tuple[str, Any]] = {
            "out": ("--root-dir", None if root_dir is None else str(root_dir)),
            "batch_size": ("--batch-size", batch_size),
            "steps": ("--steps", steps),
            "optimizer.learning_rate": ("--learning-rate", learning_rate),
            "model.base": ("--base", base),
            "model.dinov2": ("--dinov2", dinov2),
            "data.root": ("--data-root", data_root),
            "data.epoch_share": ("--limit-train-batches", limit_train_batches),
            "validation.every": ("--logger-freq", logger_freq),
        }
        given = [Override(key, value, flag) for key, (flag, value) in flags.items() if value is not None]
        loaded = load_training(recipe, [*given, *map(parse_override, settings or [])])
        if gpus is not None and not (plan or preview or export):
            from pics_cli.core.runtime.launch import launch

            raise typer.Exit(launch(gpus, device, sys.argv[1:]))
        from pics_cli.core.training.job import Job

        job = Job(loaded, Path(loaded.out), resume, allow_missing, allow_pipe, max_bad, device)
        if plan:
            _plan(job)
        elif preview is not None:
            _preview(job, preview)
        elif export is not None:
            _export(job, export)
        else:
            _train(job)
    except PicsError as error:
        if error.alone or os.environ.get("RANK", "0") == "0":
            raise
        time.sleep(_LINGER)
        raise typer.Exit(error.exit_code) from None


def _check(alone: Sequence[tuple[str, object]], gpus: int | None, resume: str, preview: Path | None) -> None:
    chosen = [flag for flag, value in alone if value]
    if len(chosen) > 1:
        raise PicsError(f"{' and '.join(chosen)} exclude each other", "give one of them")
    if preview is not None and (preview.suffix.lower() != ".png" or preview.is_dir()):
        raise PicsError(f"--preview {preview}: expected the name of a .png file")
    if gpus is not None and "RANK" in os.environ:
        raise PicsError("--gpus within a launcher that has started its processes already", "leave out --gpus")
    if resume not in ("auto", "none") and not Path(resume).is_dir():
        raise PicsError(f"--resume {resume}: expected auto, none or the folder of a checkpoint")


def _train(job: Job) -> None:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's advice on unused parameters, which there may be
    from pics_cli import console
    from pics_cli.core.runtime.ranks import join_ranks

    with join_ranks(job.device == "cpu") as ranks:
        from pics_cli.core.training.job import Progress
        from pics_cli.core.training.trainer import train as run

        progress = Progress()
        speaks = ranks.rank == 0
        console.start_logging(speaks)
        if speaks:
            with console.progress("train", "steps", lambda: _state(progress)):
                report = run(job, ranks, progress, console.note)
            console.table(str(job.root), _rows(job, report))
        else:
            run(job, ranks, progress, _silence)


def _silence(_text: str) -> None:
    pass


def _state(progress: Progress) -> State:
    from pics_cli.console import State

    words = [progress.doing] if progress.doing else []
    if progress.loss is not None:
        words += [
            f"loss {progress.loss:.4f}",
            f"{progress.rate:,.1f} samples/s",
            f"data {progress.data:.2f} + compute {progress.compute:.2f} s/step",
            f"{progress.memory / 1e9:,.1f} GB",
        ]
    return State(progress.step, progress.steps, ", ".join(words), progress.begun)


def _rows(job: Job, report: Report) -> list[tuple[str, str]]:
    rows = [("steps", f"{report.steps[0]:,} ({report.steps[1]:,} in this run)")]
    if report.steps[1]:
        held = "GPU" if report.peak[1] == "cuda" else "process"
        rows += [
            ("samples a second", f"{report.samples / max(report.seconds, 1e-9):,.2f}"),
            ("peak memory", f"{report.peak[0] / 1e9:,.2f} GB ({held})"),
        ]
    names = {"loss": "loss of the last step", "validation_loss": "validation loss"}
    rows += [(words, f"{report.last[name]:.4f}") for name, words in names.items() if name in report.last]
    if report.bad:
        rows.append(("unreadable samples", f"{len(report.bad):,}, listed in {job.root / 'bad.json'}"))
    return [*rows, ("log", str(job.root / "log.jsonl")), ("model", str(report.model))]


def _plan(job: Job) -> None:
    from pics_cli import console
    from pics_cli.core.training.memory_estimate import plan_training

    console.start_logging(speaks=True)
    made = plan_training(job, console.note)
    print(made.recipe)
    for title, rows in made.tables:
        console.table(title, rows)


def _preview(job: Job, path: Path) -> None:
    from pics_cli import console
    from pics_cli.core.training.preview import write_preview

    console.start_logging(speaks=True)
    write_preview(job, path, console.note)


def _export(job: Job, path: Path) -> None:
    from dataclasses import replace

    from pics_cli import console
    from pics_cli.core.recipes.training import INFERENCE_DEFAULTS
    from pics_cli.core.training import checkpoint
    from pics_cli.core.training.export import export

    if job.resume not in ("auto", "none"):
        found = checkpoint.read(Path(job.resume))
    elif (newest := checkpoint.newest(job.root, console.note, set_aside=False)) is None:
        raise PicsError(f"{job.root}: no checkpoint to export", "name the run with --root-dir, or train first")
    else:
        found = newest
    checkpoint.check_facts(found)
    recipe = found.recipe  # of the run, whatever the command line says; but base models may have moved since
    base = job.recipe.model.base
    if base is not None:
        recipe = replace(recipe, model=replace(recipe.model, base=base))
    inferred = {name: getattr(job.recipe.model, name) for name in INFERENCE_DEFAULTS}  # not trained: as is said now
    recipe = replace(recipe, export=job.recipe.export, model=replace(recipe.model, **inferred))
    export(recipe, found, path, console.note)
