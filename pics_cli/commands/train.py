"""`pics train`: train the compositor from shards."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pics_cli import console
from pics_cli.commands.choices import check_png
from pics_cli.commands.completions import complete_recipe
from pics_cli.commands.runner import run_job
from pics_cli.core.runtime.extras import require
from pics_cli.core.runtime.storage import is_address
from pics_cli.errors import PicsError

if TYPE_CHECKING:
    from pics_cli.core.training.progress import TrainingReport
    from pics_cli.core.training.run import TrainingJob


def train(
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            autocompletion=complete_recipe("training", "dataset"),
            help="Training recipe, or dataset recipe for that set alone.",
        ),
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
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the newest checkpoint as a model folder, or with train=lora as an adapter; train nothing.",
        ),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="With --export of an adapter: write its base model with the adapter in it.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any value of the recipe.")
    ] = None,
) -> None:
    """Train the compositor: DIR/checkpoints, DIR/samples, DIR/log.jsonl, DIR/tensorboard and, at the end, DIR/model.

    Run again to resume: the numbers are those of a run that was never stopped. `pics infer --model DIR/model` uses what
    was trained. --set train=lora --base MODEL trains an adapter of a model instead, DIR/adapter, for `pics infer
    --model MODEL --lora DIR/adapter`. Several GPUs: --gpus N, or `accelerate launch -m pics_cli train …`, or torchrun.
    """
    require("train", "pics train")
    _check([("--plan", plan), ("--preview", preview), ("--export", export)], gpus, resume, preview)
    if merge and export is None:
        raise PicsError("--merge goes with --export", "such as --export models/mine --merge")
    from pics_cli.commands.results import TrainingPlan, Written
    from pics_cli.core.recipes.base import parse_overrides, plain_recipe
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
    loaded = load_training(recipe, parse_overrides(settings, flags))
    if is_address(loaded.out):
        raise PicsError(
            f"out: {loaded.out}: a run is written to a disk of this machine",
            "name a folder with --root-dir DIR, and copy DIR/model when it is done",
        )
    # Torch's advice on unused parameters, which there may be; torch reads it when it is loaded.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if gpus is not None and not (plan or preview or export):
        from pics_cli.core.runtime.launch import launch

        raise typer.Exit(launch(gpus, device, sys.argv[1:]))
    from pics_cli.core.training.run import TrainingJob

    job = TrainingJob(loaded, Path(loaded.out), resume, allow_missing, allow_pipe, max_bad, device)
    if plan:
        from pics_cli.core.training.plan import plan_training

        planned = plan_training(job)
        memory = {**planned.memory._asdict(), "peak": planned.memory.peak}
        tables = {title: dict(rows) for title, rows in planned.tables}
        console.result(TrainingPlan(recipe=plain_recipe(loaded), memory=memory, tables=tables))
        console.show(console.printable(planned.recipe), only=True)
        for title, rows in planned.tables:
            console.table(title, rows, only=True)
    elif preview is not None:
        from pics_cli.core.training.preview import write_preview

        write_preview(job, preview)
        console.result(Written(path=preview))
    elif export is not None:
        from pics_cli.core.training.export import export_run

        export_run(loaded, job.root, export, None if resume in ("auto", "none") else Path(resume), merge)
        console.result(Written(path=export))
    else:
        _train(job)


def _check(alone: Sequence[tuple[str, object]], gpus: int | None, resume: str, preview: Path | None) -> None:
    chosen = [flag for flag, value in alone if value]
    if len(chosen) > 1:
        raise PicsError(f"{' and '.join(chosen)} exclude each other", "give one of them")
    check_png("--preview", preview)
    if gpus is not None and "RANK" in os.environ:
        raise PicsError("--gpus within a launcher that has started its processes already", "leave out --gpus")
    if resume not in ("auto", "none") and not Path(resume).is_dir():
        problem = "is a file" if Path(resume).exists() else "no such folder"
        raise PicsError(f"--resume {resume}: {problem}", "expected auto, none or the folder of a checkpoint")


def _train(job: TrainingJob) -> None:
    from pics_cli.core.training.progress import TrainingProgress
    from pics_cli.core.training.run import train as run_training

    progress = TrainingProgress()
    run_job(
        lambda ranks: run_training(job, ranks, progress),
        lambda report: _show(job, report),
        label="train",
        unit="steps",
        read=lambda: progress,
        device=job.device,
    )


def _show(job: TrainingJob, report: TrainingReport) -> None:
    from pics_cli.commands.results import TrainingRun

    console.result(
        TrainingRun(
            folder=job.root,
            step=report.step,
            new_steps=report.new_steps,
            seconds=report.seconds,
            samples=report.samples,
            peak_memory=report.peak_memory[0],
            peak_memory_of=report.peak_memory[1],
            metrics=report.metrics,
            bad_samples=len(report.bad_samples),
            model=report.model,
        )
    )
    console.table(str(job.root), _rows(job, report))


def _rows(job: TrainingJob, report: TrainingReport) -> list[tuple[str, str]]:
    rows = [("steps", f"{report.step:,} ({report.new_steps:,} in this run)")]
    if report.new_steps:
        size, kind = report.peak_memory
        rows += [
            ("samples a second", f"{report.samples / max(report.seconds, 1e-9):,.2f}"),
            ("peak memory", f"{size / 1e9:,.2f} GB ({'GPU' if kind == 'cuda' else 'process'})"),
        ]
    names = {"loss": "loss of the last step", "validation_loss": "validation loss"}
    rows += [(words, f"{report.metrics[name]:.4f}") for name, words in names.items() if name in report.metrics]
    if report.bad_samples:
        rows.append(("unreadable samples", f"{len(report.bad_samples):,}, listed in {job.root / 'bad.json'}"))
    return [*rows, ("log", str(job.root / "log.jsonl")), (report.model.name, str(report.model))]
