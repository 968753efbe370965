"""`pics annotate`: boxes of a detection dataset into masks, with Segment Anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pics_cli import console
from pics_cli.commands.choices import Dtype, LabelLayout, Multimask, check_png, parse_range
from pics_cli.commands.cluster import ENGINE_HELP, engine_opener
from pics_cli.commands.completions import complete_recipe
from pics_cli.commands.plans import Machines, show_annotation_plan
from pics_cli.commands.runner import note_in_use, run_job
from pics_cli.core.runtime.extras import require
from pics_cli.errors import FAILED, PicsError

if TYPE_CHECKING:
    from pics_cli.core.runtime.worker_group import OpenEngine
    from pics_cli.core.segmentation.blocks import AnnotationJob
    from pics_cli.core.segmentation.run import AnnotationReport


# Lines on what was left to other runs.
_LINES = 5
# Of a worker with a GPU, which waits for pictures that one alone reads.
_CORES_PER_GPU = 4


def annotate(
    dataset: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_recipe("dataset"), help="Recipe name (objects365, coco, …) or path of a .yaml."
        ),
    ],
    raw: Annotated[
        str | None, typer.Option(help="Folder of the raw dataset, or its address, as s3://….  [default: the recipe's]")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the labels, or address.  [default: where build-shards looks for them in --raw]",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    rows: Annotated[
        str | None,
        typer.Option("--range", metavar="LOW:HIGH", help="Pictures LOW to HIGH only, for several runs on one folder."),
    ] = None,
    sam: Annotated[
        str, typer.Option(metavar="vit_h|vit_l|vit_b|DIR", help="Model, or a folder with one of another shape.")
    ] = "vit_h",
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its weights, .pth or .safetensors.  [default: in checkpoints/]"),
    ] = None,
    batch_images: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures that the encoder takes at once.  [default: 4, on a CPU 1]"),
    ] = None,
    batch_boxes: Annotated[int, typer.Option(min=1, help="Boxes that the decoder takes at once.")] = 64,
    multimask: Annotated[
        Multimask, typer.Option(help="best: of three masks for each box the one with the best score; off: one.")
    ] = "best",
    layout: Annotated[
        LabelLayout, typer.Option(help="blocks, or published: a json of polygons for each picture, holes lost.")
    ] = "blocks",
    dtype: Annotated[Dtype, typer.Option(help="Of the image encoder; auto: on a GPU bf16 or fp16, on a CPU fp32.")] = (
        "auto"
    ),
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")] = "auto",
    engine: Annotated[str, typer.Option(metavar="ENGINE", help=ENGINE_HELP)] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that read and write, for each GPU.  [default: all cores; on Ray 4 a GPU, without GPUs 1]",
        ),
    ] = None,
    max_bad: Annotated[
        int | None, typer.Option(min=0, help="Stop above N unreadable pictures.  [default: 1 %, at least 100]")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Look again at pictures that failed before, and at nothing else.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make labels again that are there.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Segment some pictures, throw the masks away and tell what all would take.")
    ] = False,
    nodes: Annotated[int | None, typer.Option(min=1, help="Plan for N nodes.  [default: 1, 20 and 200]")] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Of each node; on a CPU its cores.  [default: as this machine]")
    ] = None,
    gbit: Annotated[
        float | None, typer.Option(min=0.001, help="Network of each node, gigabits a second.  [default: 10]")
    ] = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw pictures with boxes, masks and scores, worst first.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any value of the recipe.")
    ] = None,
) -> None:
    """Turn a detection dataset's boxes into masks with Segment Anything, for build-shards to read.

    Run again to resume: only blocks that are missing are made. Several GPUs: `accelerate launch -m pics_cli annotate
    …`; or several runs with --range on one folder; several machines: --engine. Where weights are
    missing, the command says where to get them.
    """
    require("annotate", "pics annotate")
    check_png("--contact-sheet", contact_sheet)
    if contact_sheet is not None and layout == "published":
        raise PicsError("--contact-sheet: label files of layout published hold no scores", "leave out --layout")
    if retry_failed and overwrite:
        raise PicsError("--retry-failed and --overwrite exclude each other", "leave one out")
    machines = Machines(nodes, gpus, gbit)
    machines.check(plan, "--gpus")
    others = (contact_sheet is not None, rows is not None, retry_failed, overwrite, engine != "local")
    if plan and any(others):
        raise PicsError(
            "--plan goes without --range, --retry-failed, --overwrite, --contact-sheet and --engine", "leave them out"
        )
    open_engine = engine_opener(engine, device, workers, _CORES_PER_GPU)
    row_range = parse_range(rows or "0:")
    from pics_cli.core.datasets.readers.base import DatasetSplit
    from pics_cli.core.recipes.base import find_recipe, parse_overrides
    from pics_cli.core.recipes.dataset import load_dataset
    from pics_cli.core.runtime.engines import available_cores
    from pics_cli.core.runtime.outputs import refuse_other_picture, refuse_overwriting, refuse_result_folder
    from pics_cli.core.runtime.ranks import local_process_count
    from pics_cli.core.runtime.storage import location
    from pics_cli.core.segmentation.blocks import AnnotationJob
    from pics_cli.core.segmentation.boxes import annotation_file, default_label_folder

    recipe = load_dataset(find_recipe(dataset, "dataset"), parse_overrides(settings, {"raw": ("--raw", raw)}))
    source = DatasetSplit(recipe, split, None if recipe.raw is None else location(recipe.raw))
    raw_folder = [] if source.raw is None else [("the raw folder", source.raw)]
    if contact_sheet is not None:
        refuse_overwriting([("--contact-sheet", contact_sheet)], [], raw_folder)
        refuse_other_picture("--contact-sheet", contact_sheet)
    folder = None if out is None else location(out).expanduser()
    job = AnnotationJob(
        source=source, folder=folder or default_label_folder(recipe, split, source.raw), rows=row_range, sam=sam,
        checkpoint=checkpoint, batch_images=batch_images, batch_boxes=batch_boxes, multimask=multimask == "best",
        device=device, dtype=dtype, workers=workers or max(1, available_cores() // local_process_count()),
        max_bad=max_bad, overwrite=overwrite, layout=layout, retry=retry_failed,
    )  # fmt: skip
    if plan:
        _plan(job, machines)
        return
    if folder is not None:
        annotations = annotation_file(recipe, split, source.raw)
        refuse_result_folder(folder, job.state, source.raw, [("the annotations", annotations)])
    elsewhere = folder is not None and folder.absolute() != default_label_folder(recipe, split, source.raw).absolute()
    use = f"to build from them: pics build-shards {dataset} --split {split} --labels {out}" if elsewhere else None
    _run(job, open_engine, contact_sheet, use)


def _plan(job: AnnotationJob, machines: Machines) -> None:
    from pics_cli.core.runtime.progress import Progress
    from pics_cli.core.segmentation.plan import plan_annotation

    progress, name = Progress(), f"{job.source.recipe.name} {job.source.split}"
    with console.show_progress(f"{name}: plan", "pictures", lambda: progress):
        plan = plan_annotation(job, progress)
    show_annotation_plan(name, plan, machines)


def _run(job: AnnotationJob, open_engine: OpenEngine | None, sheet: Path | None, use: str | None) -> None:
    from pics_cli.core.runtime.files import make_folder
    from pics_cli.core.segmentation.annotator import AnnotationProgress
    from pics_cli.core.segmentation.run import annotate as run_annotation

    if sheet is not None:
        make_folder(sheet.parent)  # hours of work must not end in a misspelt folder
    progress = AnnotationProgress()

    def show(report: AnnotationReport) -> None:
        _keep(job, report)
        console.table(f"{job.source.recipe.name} {job.source.split} in {job.folder}", _rows(report))
        if sheet is not None:
            from pics_cli.core.segmentation.contact_sheet import write_sheet

            write_sheet(job, sheet)
            console.note(f"contact sheet: {sheet}")
        _check(report)
        if use is not None:
            console.note(use)

    run_job(
        lambda ranks: run_annotation(job, ranks, progress, open_engine),
        show,
        label="annotate",
        unit="pictures",
        read=lambda: progress,
        device=job.device,
    )


def _keep(job: AnnotationJob, report: AnnotationReport) -> None:
    from pics_cli.commands.results import Labels

    manifest = report.manifest
    console.result(
        Labels(
            folder=job.folder,
            complete=manifest["complete"],
            pictures=manifest["pictures"],
            of_pictures=manifest["of_pictures"],
            blocks=manifest["blocks_done"],
            of_blocks=manifest["of_blocks"],
            boxes=manifest["boxes"],
            made=report.segmented,
            seconds=report.seconds,
            dropped=manifest["dropped"],
            flags=manifest["flags"],
            bad=manifest["bad_pictures"],
            bad_records=manifest["bad_records"],
            in_use=report.in_use,
        )
    )


def _check(report: AnnotationReport) -> None:
    """Tell what is not finished.

    Raises:
        PicsError: no image could be read, or blocks cannot be made.
    """
    manifest = report.manifest
    note_in_use(report.in_use, "blocks")
    if bad := sum(manifest["bad_pictures"].values()):
        console.note(
            f"{bad:,} pictures could not be read (listed in the blocks' stats): the same command tries them again"
        )
    if not manifest["complete"]:
        console.note("some blocks are not there yet: run again without --range, or the other ranges, to make them")
    if bad and not manifest["pictures"]:
        raise PicsError("no picture could be read", "does --raw hold the pictures that the annotations name?", FAILED)


def _rows(report: AnnotationReport) -> list[tuple[str, str]]:
    manifest, segmented = report.manifest, report.segmented
    rows = [
        ("pictures", f"{manifest['pictures']:,} of {manifest['of_pictures']:,}"),
        ("blocks", f"{manifest['blocks_done']:,} of {manifest['of_blocks']:,}" + (", complete" * manifest["complete"])),
        ("boxes", f"{manifest['boxes']:,}"),
    ]
    if segmented["pictures"]:
        speed = [f"{segmented[what] / max(report.seconds, 1e-9):,.1f} {what}/s" for what in ("pictures", "boxes")]
        rows.append(("made now", f"{segmented['pictures']:,} pictures in {report.seconds:,.1f} s: {', '.join(speed)}"))
    rows += [(f"dropped: {reason}", f"{count:,}") for reason, count in manifest["dropped"].items()]
    rows += [(f"flagged: {flag}", f"{count:,}") for flag, count in manifest["flags"].items()]
    rows += [(f"bad: {reason}", f"{count:,}") for reason, count in manifest["bad_pictures"].items()]
    rows += [(f"bad records: {reason}", f"{count:,}") for reason, count in manifest["bad_records"].items()]
    return [*rows, ("scores", _histogram(manifest["scores"]))]


def _histogram(counts: list[int]) -> str:
    """Shares of masks by their score, in tenths."""
    pairs = [sum(counts[at : at + len(counts) // 10]) for at in range(0, len(counts), len(counts) // 10)]
    total = max(sum(pairs), 1)
    return ", ".join(f"{at / 10:.1f}: {count / total:.0%}" for at, count in enumerate(pairs) if count)
