"""`pics build-shards`: a raw dataset into training shards."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pics_cli import console
from pics_cli.commands.build_report import build_rows, count_rows, keep_build, no_sample
from pics_cli.commands.choices import check_png, parse_range
from pics_cli.commands.completions import complete_recipe
from pics_cli.commands.plans import Machines, show_build_plan
from pics_cli.commands.runner import note_in_use
from pics_cli.errors import PicsError, abbreviate

if TYPE_CHECKING:
    from pics_cli.core.datasets.build_job import BuildJob
    from pics_cli.core.datasets.readers.base import Reader


def build_shards(
    dataset: Annotated[
        str | None,
        typer.Argument(
            autocompletion=complete_recipe("dataset"), help="Recipe name (lvis, coco, …) or path of a .yaml."
        ),
    ] = None,
    raw: Annotated[
        str | None, typer.Option(help="Folder of the raw dataset, or its address, as s3://….  [default: the recipe's]")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the shards, or address.  [default: the recipe's]")] = None,
    split: Annotated[str | None, typer.Option(help="train, val or test.  [default: train]")] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Masks that `pics annotate --out DIR` made."),
    ] = None,
    area_ratio: Annotated[
        float | None, typer.Option(help="Objects must cover more than this share of the picture.")
    ] = None,
    objects: Annotated[int | None, typer.Option(help="Objects per sample, 1 to 4.")] = None,
    engine: Annotated[
        str, typer.Option(metavar="ENGINE", help="local, ray, or ray://HOST:PORT: where processes run.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.  [default: all cores; on Ray as many as fit]")
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option("--range", metavar="LOW:HIGH", help="Shards LOW to HIGH only, for several runs on one folder."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at the first N pictures only.")] = None,
    shard_size: Annotated[int | None, typer.Option(help="Candidates a shard is built from.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the patches' padding and of drawn scenes.")] = None,
    layout: Annotated[
        str | None, typer.Option(help="published, or compact: a third smaller, read the same.  [default: the recipe's]")
    ] = None,
    compat: Annotated[
        bool, typer.Option("--compat", help="Choose and cut as the research code does, faults included.")
    ] = False,
    max_bad: Annotated[
        int | None, typer.Option(min=0, help="Stop above N unreadable pictures.  [default: 1 %, at least 100]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace shards built there before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Choose pairs and count; write no shards.")] = False,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Tell what the dataset holds and what would be kept; write nothing.")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Build some pictures, throw them away and tell what all would take."),
    ] = False,
    nodes: Annotated[int | None, typer.Option(min=1, help="Plan for N nodes.  [default: 1, 20 and 200]")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Of each node.  [default: as this machine]")] = None,
    gbit: Annotated[
        float | None, typer.Option(min=0.001, help="Network of each node, gigabits a second.  [default: 10]")
    ] = None,
    check: Annotated[
        str | None, typer.Option(metavar="DIR", help="Check the shards of a folder instead of building.")
    ] = None,
    convert: Annotated[
        str | None, typer.Option(metavar="DIR", help="Turn the shards of a folder into the other layout, in --out.")
    ] = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw chosen pairs and skipped pictures.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any value of the recipe.")
    ] = None,
) -> None:
    """Turn a raw dataset into training shards: choose interacting objects, cut references, pack WebDataset tars.

    Run again to resume. A dataset of your own in a known format needs one YAML file.
    """
    from pics_cli.commands import shard_tools
    from pics_cli.core.runtime.engines import available_cores
    from pics_cli.core.runtime.open_engine import check_engine
    from pics_cli.core.runtime.storage import location

    check_engine(engine)
    processes = workers or available_cores()
    if check is not None or convert is not None:
        others: list[object] = [dataset, raw, area_ratio, objects, limit, shard_size, seed, contact_sheet, settings]
        for_convert = (convert, out, layout, split, max_bad, overwrite or None)
        others += [labels, compat or None, dry_run or None, *(for_convert if check is not None else ())]
        others += [inspect or None, plan or None, shards, None if engine == "local" else engine]
        if any(other is not None for other in others):
            raise PicsError(
                "--check DIR goes with --workers only; --convert DIR with --out, --layout, --split, --max-bad, "
                "--overwrite and --workers",
                "they read shards that are there and build none from raw files",
            )
        if check is not None:
            shard_tools.check(location(check), processes)
        elif convert is not None:
            shard_tools.convert(location(convert), out, layout, split, processes, max_bad, overwrite)
        return
    if dataset is None:
        raise PicsError("no dataset named", "pics build-shards NAME, for example: pics build-shards lvis")
    check_png("--contact-sheet", contact_sheet)
    machines = Machines(nodes, cores, gbit)
    machines.check(plan, "--cores")
    if shards is not None and (contact_sheet is not None or dry_run or inspect or overwrite or plan):
        raise PicsError(
            "--range goes without --dry-run, --inspect, --plan, --overwrite and --contact-sheet",
            "they are of the whole split; to replace shards: --overwrite without --range once",
        )
    shard_range = None if shards is None else parse_range(shards)
    if plan and (contact_sheet is not None or dry_run or inspect or overwrite or engine != "local"):
        raise PicsError(
            "--plan goes without --engine, --dry-run, --inspect, --overwrite and --contact-sheet",
            "it measures this machine, writes nothing, and --nodes says for what cluster it plans",
        )
    from pics_cli.core.datasets.build_job import BuildJob
    from pics_cli.core.datasets.readers.base import DatasetSplit
    from pics_cli.core.recipes.base import find_recipe, parse_overrides
    from pics_cli.core.recipes.dataset import load_dataset
    from pics_cli.core.runtime.outputs import refuse_other_picture, refuse_overwriting, refuse_result_folder

    def full(name: str) -> str:
        return str(location(name).expanduser().resolve())

    flags: dict[str, tuple[str, Any]] = {
        f"source.splits.{split or 'train'}.labels": (
            "--labels",
            labels and [full(labels)],
        ),
        "pairs.min_area_ratio": ("--area-ratio", area_ratio),
        "pairs.objects": ("--objects", objects),
        "shards.size": ("--shard-size", shard_size),
        "shards.layout": ("--layout", layout),
        "compat": ("--compat", compat or None),
        "seed": ("--seed", seed),
        "raw": ("--raw", raw),
        "out": ("--out", out),
    }
    recipe = load_dataset(find_recipe(dataset, "dataset"), parse_overrides(settings, flags))
    if recipe.source.format == "synth" and recipe.raw is not None:
        raise PicsError(f"{recipe.name} is drawn, not read: it takes no raw folder", "leave --raw away")
    source = DatasetSplit(recipe, split or "train", None if recipe.raw is None else location(recipe.raw))
    folder = location(recipe.out.replace("{split}", source.split))
    raw_folder = [] if source.raw is None else [("the raw folder", source.raw)]
    if contact_sheet is not None:
        refuse_overwriting([("--contact-sheet", contact_sheet)], [], raw_folder)
        refuse_other_picture("--contact-sheet", contact_sheet)
    if plan:
        _plan(BuildJob(source, folder, limit, max_bad), processes, machines)
        return
    if not (dry_run or inspect):
        refuse_result_folder(folder, folder, source.raw)
    if shard_range is not None:
        _build_range(BuildJob(source, folder, limit, max_bad), shard_range, engine, workers)
        return
    _build(BuildJob(source, folder, limit, max_bad, overwrite), engine, workers, dry_run, inspect, contact_sheet)


def _build(job: BuildJob, engine: str, workers: int | None, dry: bool, inspect: bool, sheet: Path | None) -> None:
    from pics_cli.commands.results import DryRun
    from pics_cli.core.datasets import contact_sheet
    from pics_cli.core.datasets.build import build, dry_run
    from pics_cli.core.datasets.build_job import BuildProgress
    from pics_cli.core.datasets.readers import open_reader
    from pics_cli.core.datasets.readers.base import no_picture
    from pics_cli.core.runtime.files import make_folder
    from pics_cli.core.runtime.open_engine import open_engine

    source, recipe, split = job.dataset, job.dataset.recipe, job.dataset.split
    reader, looked = _open(job, writes=not (dry or inspect)), None
    if sheet:
        make_folder(sheet.parent)  # hours of building must not end in a misspelt folder
    if inspect:
        from pics_cli.commands.shard_tools import show_inspection

        looked = show_inspection(open_reader(source, as_given=True), recipe, split, job.limit)
    progress = BuildProgress()
    opened = partial(open_engine, engine, workers)
    manifest = None
    with console.show_progress(f"{recipe.name} {split}", "pictures", lambda: progress):
        if dry or inspect:
            candidates, stats = dry_run(job, reader, opened, progress)
            examples, bad = stats.examples, stats.bad
        else:
            manifest = build(job, reader, opened, progress)
            examples, bad = manifest["skipped_examples"], manifest["bad_pictures"]
    if manifest:
        keep_build(job, manifest, reader, progress.resumed)
        console.table(f"{recipe.name} {split} in {job.folder}", build_rows(manifest, reader, recipe, progress))
    else:
        console.result(
            DryRun(
                pictures=progress.total,
                candidates=len(candidates),
                skipped=stats.skipped,
                bad=Counter(entry["reason"] for entry in bad),
                bad_records=reader.bad_records.counts,
                inspection=looked,
            )
        )
        rows = [("pictures", f"{progress.total:,}"), ("would be tried", f"{len(candidates):,}")]
        rows += count_rows(stats.skipped, bad, stats.noted, reader, recipe)
        console.table(f"{recipe.name} {split}: dry run, nothing written", rows, only=True)
    if sheet:
        if manifest:
            tiles = contact_sheet.tiles_of_shards(job.folder, manifest["shards"])
        else:
            tiles = contact_sheet.tiles_of_candidates(source, reader, candidates)
        tiles += contact_sheet.tiles_of_skipped(reader, recipe.pairs, examples, bad)
        contact_sheet.write_sheet(sheet, f"{recipe.name} {split}", tiles)
        console.note(f"contact sheet: {sheet}")
    if manifest and not manifest["samples"]:
        if not manifest["pictures"]:
            raise no_picture(reader.annotations)
        raise no_sample(manifest, split)


def _open(job: BuildJob, writes: bool) -> Reader:
    """The job's reader, of which the user is told."""
    from pics_cli.core.datasets.readers import open_reader
    from pics_cli.core.datasets.readers.base import no_picture
    from pics_cli.core.runtime.outputs import refuse_overwriting

    recipe = job.dataset.recipe
    reader = open_reader(job.dataset)
    files = reader.annotation_files
    if writes:
        refuse_overwriting([("--out", job.folder)], [("the annotations", path) for path in files])
    origin = f"annotations from {abbreviate(list(map(str, files)), 3)}" if files else f"drawn from seed {recipe.seed}"
    if reader.unread:
        origin += f" (not from {', '.join(map(str, reader.unread))}: a pattern with * reads several)"
    console.note(f"{recipe.name} {job.dataset.split}: {len(reader):,} pictures, {origin}")
    if not len(reader) and not reader.bad_records.counts:  # bad ones are told by the table of the build
        raise no_picture(reader.annotations)
    return reader


def _build_range(job: BuildJob, shards: tuple[int, int | None], engine: str, workers: int | None) -> None:
    from pics_cli.core.datasets.build_job import BuildProgress
    from pics_cli.core.datasets.build_range import build_range
    from pics_cli.core.runtime.open_engine import open_engine

    reader, recipe, progress = _open(job, writes=True), job.dataset.recipe, BuildProgress()
    name = f"{recipe.name} {job.dataset.split}"
    with console.show_progress(name, "pictures", lambda: progress):
        report = build_range(job, shards, reader, partial(open_engine, engine, workers), progress)
    manifest = report.manifest
    rows = [("shards", f"{report.of_range:,} in this range, {report.built:,} of them built now")]
    if manifest["complete"]:
        rows += build_rows(manifest, reader, recipe, progress)
    else:
        rows += count_rows(progress.stats.skipped, progress.stats.bad, progress.stats.noted, reader, recipe)
    keep_build(job, manifest, reader, progress.resumed, report)
    console.table(f"{name} in {job.folder}", rows)
    note_in_use(report.in_use, "shards")
    if report.missing:
        console.note(
            f"{report.missing:,} of {report.of_shards:,} shards are not there yet: run again without --range, or the "
            "other ranges, to make them"
        )


def _plan(job: BuildJob, workers: int, machines: Machines) -> None:
    from pics_cli.core.datasets.plan_build import plan_build
    from pics_cli.core.runtime.progress import Progress

    reader, progress = _open(job, writes=False), Progress()
    name = f"{job.dataset.recipe.name} {job.dataset.split}"
    with console.show_progress(f"{name}: plan", "pictures", lambda: progress):
        plan = plan_build(job, reader, progress)
    show_build_plan(name, str(job.dataset.raw), plan, workers, machines)
