"""`pics build-shards`: a raw dataset into training shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from pics_cli.errors import PicsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pics_cli.core.data.build import Job, Progress
    from pics_cli.core.data.contact_sheet import Tile
    from pics_cli.core.data.readers import Reader
    from pics_cli.core.recipe import Override

SHEET_SAMPLES = 12


def build_shards(
    dataset: Annotated[Optional[str], typer.Argument(help="Recipe name (lvis, coco, …) or path of a .yaml.")] = None,
    raw: Annotated[Optional[Path], typer.Option(help="Folder of the raw dataset.  [default: the recipe's]")] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder for the shards.  [default: the recipe's]")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    area_ratio: Annotated[
        Optional[float], typer.Option(help="Objects must cover more than this share of the picture.")
    ] = None,
    objects: Annotated[Optional[int], typer.Option(help="Objects per sample, 1 to 4.")] = None,
    workers: Annotated[Optional[int], typer.Option(min=1, help="Processes.  [default: all cores]")] = None,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Look at the first N pictures only.")] = None,
    shard_size: Annotated[Optional[int], typer.Option(help="Candidates a shard is built from.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Seed of the patches' padding.")] = None,
    max_bad: Annotated[
        Optional[int], typer.Option(min=0, help="Stop above N unreadable pictures.  [default: 1 %, at least 100]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace shards built there before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Choose pairs and count; write no shards.")] = False,
    check: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Check the shards of a folder instead of building.")
    ] = None,
    contact_sheet: Annotated[
        Optional[Path], typer.Option(metavar="FILE.png", help="Draw chosen pairs and skipped pictures.")
    ] = None,
    settings: Annotated[
        Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="Override any value of the recipe.")
    ] = None,
) -> None:
    """Turn a raw dataset into training shards: choose interacting objects, cut references, pack WebDataset tars.

    Run again to resume. A dataset of your own in COCO's format needs one YAML file (see the README).
    """
    from pics_cli.core.executors import available_cores

    processes = workers or available_cores()
    if check is not None:
        _check(check, processes)
        return
    if dataset is None:
        raise PicsError("no dataset named", "pics build-shards NAME, for example: pics build-shards lvis")
    if contact_sheet is not None and contact_sheet.suffix.lower() != ".png":
        raise PicsError(f"--contact-sheet {contact_sheet}: expected a name that ends in .png")
    flags = {
        "pairs.min_area_ratio": ("--area-ratio", area_ratio),
        "pairs.objects": ("--objects", objects),
        "shards.size": ("--shard-size", shard_size),
        "seed": ("--seed", seed),
        "raw": ("--raw", None if raw is None else str(raw)),
        "out": ("--out", None if out is None else str(out)),
    }
    _build(dataset, split, flags, settings or [], processes, (limit, max_bad, overwrite), dry_run, contact_sheet)


def _build(
    dataset: str,
    split: str,
    flags: dict[str, tuple[str, Any]],
    settings: Sequence[str],
    workers: int,
    job_options: tuple[int | None, int | None, bool],
    dry: bool,
    sheet: Path | None,
) -> None:
    from functools import partial

    from pics_cli import console
    from pics_cli.core.data.blocks import Input
    from pics_cli.core.data.build import Engine, Job, Progress, build, dry_run
    from pics_cli.core.data.readers import open_reader
    from pics_cli.core.executors import local_executor
    from pics_cli.core.recipe import Override, find_recipe, load_dataset, parse_override

    overrides: list[Override] = [parse_override(text) for text in settings]
    overrides += [Override(key, value, flag) for key, (flag, value) in flags.items() if value is not None]
    recipe = load_dataset(find_recipe(dataset, "dataset"), overrides)
    source = Input(recipe, split, Path(recipe.raw))
    reader = open_reader(recipe, split, source.raw, lambda path: console.note(f"indexing {path} (once)"))
    console.note(f"{recipe.name} {split}: {len(reader):,} pictures, annotations from {reader.place}")
    job = Job(source, Path(recipe.out.replace("{split}", split)), *job_options)
    progress = Progress()
    engine = Engine(partial(local_executor, workers), workers)
    with console.progress(f"{recipe.name} {split}", "pictures", lambda: _state(progress)):
        if dry:
            candidates, outcome = dry_run(job, reader, engine, progress)
        else:
            manifest = build(job, reader, engine, progress, console.note)
    if dry:
        tiles = _sheet_of_candidates(job, reader, candidates) if sheet else []
        examples, bad = outcome.examples, outcome.bad
        rows = [("pictures", f"{progress.pictures:,}"), ("would be tried", f"{len(candidates):,}")]
        rows += _count_rows(outcome.plain()["skipped"], len(bad), reader)
        console.table(f"{recipe.name} {split}: dry run, nothing written", rows)
    else:
        tiles = _sheet_of_shards(job.folder, manifest) if sheet else []
        examples, bad = manifest["skipped_examples"], manifest["bad_pictures"]
        console.table(f"{recipe.name} {split} in {job.folder}", _build_rows(manifest, reader, progress))
    if sheet:
        tiles += _sheet_of_skipped(job, reader, examples, bad)
        _write_sheet(sheet, f"{recipe.name} {split}", tiles)
        console.note(f"contact sheet: {sheet}")
    if not dry and not manifest["samples"]:
        why = ", ".join(f"{count:,} {reason}" for reason, count in manifest["skipped"].items())
        raise PicsError(
            f"no picture gave a sample: {why or 'all were bad'}",
            "lower --area-ratio, raise --limit or look at --contact-sheet FILE.png",
        )


def _state(progress: Progress) -> Any:
    from pics_cli.console import State

    skipped = dict(progress.outcome.skipped.most_common(3))
    bad = len(progress.outcome.bad)
    words = [f"kept {progress.kept:,}"]
    if skipped:
        words.append("skipped " + ", ".join(f"{count:,} {reason}" for reason, count in skipped.items()))
    if bad:
        words.append(f"bad {bad:,}")
    if progress.resumed:
        words.append(f"{progress.resumed:,} shards were there")
    return State(progress.done, progress.pictures, "; ".join(words))


def _build_rows(manifest: dict[str, Any], reader: Reader, progress: Progress) -> list[tuple[str, str]]:
    size = sum(shard["bytes"] for shard in manifest["shards"])
    per_sample = f" ({size / manifest['samples'] / 1e3:,.0f} kB a sample)" if manifest["samples"] else ""
    rows = [
        ("pictures", f"{manifest['pictures']:,} of {manifest['of_pictures']:,}"),
        ("kept", f"{manifest['samples']:,} in {len(manifest['shards']):,} shards, {size / 1e6:,.1f} MB{per_sample}"),
    ]
    rows += _count_rows(manifest["skipped"], manifest["bad"]["pictures"], reader)
    if progress.resumed:
        rows.append(("resumed", f"{progress.resumed:,} shards were there already"))
    return rows


def _count_rows(skipped: dict[str, int], bad: int, reader: Reader) -> list[tuple[str, str]]:
    from pics_cli.core.data.pairs import SKIP_REASONS

    ranked = sorted(skipped.items(), key=lambda entry: -entry[1])
    rows = [(f"skipped: {reason}", f"{count:,} ({SKIP_REASONS[reason]})") for reason, count in ranked]
    if bad:
        rows.append(("bad pictures", f"{bad:,}"))
    return rows + [(f"bad records: {reason}", f"{count:,}") for reason, count in reader.bad["counts"].items()]


def _sheet_of_shards(folder: Path, manifest: dict[str, Any]) -> list[Tile]:
    """Samples from up to four shards, as a reader of the shards gets them."""
    from itertools import islice

    from pics_cli.core.data.contact_sheet import sample_tile
    from pics_cli.core.data.samples import decode_sample
    from pics_cli.core.data.shards import read_shard

    shards = manifest["shards"]
    chosen = shards[:: max(1, len(shards) // 4)][:4]
    each = -(-SHEET_SAMPLES // max(1, len(chosen)))
    return [
        sample_tile(decode_sample(key, members))
        for shard in chosen
        for key, members in islice(read_shard(folder / shard["file"]), each)
    ]


def _sheet_of_candidates(job: Job, reader: Reader, candidates: Sequence[Any]) -> list[Tile]:
    from pics_cli.core.data.contact_sheet import sample_tile
    from pics_cli.core.data.samples import build_sample, decode_sample
    from pics_cli.core.data.scene import Skip
    from pics_cli.errors import BadSample

    tiles = []
    recipe = job.source.recipe
    for item, group in candidates[:: max(1, len(candidates) // SHEET_SAMPLES)][:SHEET_SAMPLES]:
        try:
            scene = reader.scene(item)
            members = build_sample(scene, group, recipe.seed, recipe.name, job.source.split)
        except BadSample:
            continue  # the build itself will count it
        if not isinstance(members, Skip):
            tiles.append(sample_tile(decode_sample(scene.key, members)))
    return tiles


def _sheet_of_skipped(
    job: Job, reader: Reader, examples: dict[str, list[Any]], bad: Sequence[dict[str, Any]]
) -> list[Tile]:
    from pics_cli.core.data.contact_sheet import skip_tile
    from pics_cli.errors import BadSample

    shown = [(item, reason, "") for reason, items in examples.items() for item in items]
    by_reason: dict[str, list[tuple[Any, str, str]]] = {}
    for entry in bad:
        by_reason.setdefault(entry["reason"], []).append((entry["item"], entry["reason"], entry["detail"]))
    shown += [entry for entries in by_reason.values() for entry in entries[:3]]
    tiles = []
    for item, reason, detail in shown:
        try:
            tiles.append(skip_tile(reader.scene(item), reason, job.source.recipe.pairs, detail))
        except BadSample:
            continue  # no scene to draw; it is listed in the manifest
    return tiles


def _write_sheet(path: Path, title: str, tiles: Sequence[Tile]) -> None:
    from pics_cli.core.data.contact_sheet import draw_sheet
    from pics_cli.core.data.pictures import encode_png
    from pics_cli.core.files import AtomicFile, make_folder

    make_folder(path.parent)
    with AtomicFile(path) as file:
        file.write(encode_png(draw_sheet(title, tiles)))


def _check(folder: Path, workers: int) -> None:
    from collections import Counter

    from pics_cli import console
    from pics_cli.core.data.check import check_folder, list_shards
    from pics_cli.core.executors import Tally, local_executor

    shards, expected = list_shards(folder)
    total = sum(shard["samples"] for shard in expected.values())
    tally = Tally()
    with (
        console.progress(f"check {folder.name}", "samples", lambda: console.State(tally.done, total, "")),
        local_executor(workers, tally) as executor,
    ):
        reports = list(check_folder(folder, executor))
    faults = [fault for report in reports for fault in report.faults]
    kinds = sum((report.objects for report in reports), Counter[int]())
    rows = [("shards", f"{len(shards):,}" + ("" if expected else " (no manifest: no checksums to compare)"))]
    rows += [("samples", f"{sum(report.samples for report in reports):,}")]
    rows += [(f"with {count} objects", f"{samples:,}") for count, samples in sorted(kinds.items())]
    if published := sum(report.without_json for report in reports):
        rows.append(("without json", f"{published:,} (as the research project publishes them)"))
    for reason, count in Counter(fault.reason for fault in faults).most_common():
        rows.append((f"fault: {reason}", f"{count:,}"))
    console.table(f"check of {folder}", rows)
    if faults:
        lines = [f"  {fault.shard} {fault.key}: {fault.reason}: {fault.detail}" for fault in faults]
        shown = "\n".join(lines[:20]) + (f"\n  and {len(lines) - 20:,} more" if len(lines) > 20 else "")
        raise PicsError(f"{folder}: {len(faults):,} faults:\n{shown}", "build or download these shards again")
