"""What `pics build-shards` does besides building: inspect a raw dataset, check shards, convert them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pics_cli import console
from pics_cli.core.runtime.progress import Progress
from pics_cli.errors import PicsError

if TYPE_CHECKING:
    from pics_cli.commands.results import Inspection
    from pics_cli.core.datasets.readers.base import Reader
    from pics_cli.core.recipes.dataset import DatasetRecipe


def check(folder: Path, workers: int) -> None:
    """Check every shard of a folder and list what is wrong."""
    from pics_cli.commands.results import Check, ShardFault
    from pics_cli.core.datasets.check_shards import check_folder
    from pics_cli.core.datasets.shard_folder import list_shards
    from pics_cli.core.runtime.engines import PictureCounter, local_executor

    shards, expected = list_shards(folder)
    total = sum(shard["samples"] for shard in expected.values())
    counter = PictureCounter()
    with (
        console.show_progress(f"check {folder.name}", "samples", lambda: Progress(counter.done, total)),
        local_executor(workers, counter) as executor,
    ):
        reports = list(check_folder(folder, executor))
    errors = [error for report in reports for error in report.errors]
    kinds = sum((report.objects for report in reports), Counter[int]())
    samples = sum(report.samples for report in reports)
    faults = [ShardFault(**error._asdict()) for error in errors]
    console.result(Check(folder=folder, shards=len(shards), samples=samples, objects=kinds, errors=faults))
    rows = [("shards", f"{len(shards):,}" + ("" if expected else " (no manifest: no checksums to compare)"))]
    rows += [("samples", f"{samples:,}")]
    rows += [(f"with {count} objects", f"{samples:,}") for count, samples in sorted(kinds.items())]
    if published := sum(report.without_json for report in reports):
        rows.append(("without json", f"{published:,} (as the research project publishes them)"))
    for reason, count in Counter(error.reason for error in errors).most_common():
        rows.append((f"error: {reason}", f"{count:,}"))
    console.table(f"check of {folder}", rows, only=True)
    if errors:
        lines = [f"  {error.shard} {error.key}: {error.reason}: {error.detail}" for error in errors]
        shown = "\n".join(lines[:20]) + (f"\n  and {len(lines) - 20:,} more" if len(lines) > 20 else "")
        raise PicsError(f"{folder}: {len(errors):,} errors:\n{shown}", "build or download these shards again")


def convert(
    source: Path,
    out: str | None,
    layout: str | None,
    split: str | None,
    workers: int,
    max_bad: int | None,
    overwrite: bool,
) -> None:
    """Turn a folder of shards into the other layout."""
    from pics_cli.commands.results import ConvertedShards
    from pics_cli.core.datasets.convert_shards import ConversionJob, convert
    from pics_cli.core.datasets.shard_folder import list_shards
    from pics_cli.core.recipes.dataset import Layout
    from pics_cli.core.runtime.engines import PictureCounter, local_executor
    from pics_cli.core.runtime.manifest import read_manifest
    from pics_cli.core.runtime.storage import list_folder, location

    if out is None:
        raise PicsError("--convert needs --out DIR", "name the folder for the converted shards")
    if layout not in (None, *get_args(Layout)):
        raise PicsError(f"--layout {layout}: expected {' or '.join(get_args(Layout))}")
    shards, expected = list_shards(source)
    total = sum(shard["samples"] for shard in expected.values())
    earlier = read_manifest(source) or {}
    if split not in (None, earlier.get("split", split)):
        raise PicsError(f"--split {split}: {source} holds {earlier['split']} by its manifest", "leave --split away")
    split = earlier.get("split") or split or "train"
    job = ConversionJob(source, location(out.replace("{split}", split)), layout, split, max_bad, overwrite)
    counter = PictureCounter()
    with (
        console.show_progress(f"convert {source.name}", "samples", lambda: Progress(counter.done, total)),
        local_executor(workers, counter) as executor,
    ):
        manifest, resumed = convert(job, executor, workers)
    before = list_folder(source)
    sizes = [sum(before[path.name].size for path in shards), sum(shard["bytes"] for shard in manifest["shards"])]
    console.result(
        ConvertedShards(
            folder=job.folder,
            layout=manifest["recipe"]["shards"]["layout"],
            samples=manifest["samples"],
            shards=len(manifest["shards"]),
            bytes=sizes[1],
            bytes_before=sizes[0],
            bad=manifest["bad"]["pictures"],
            resumed=resumed,
        )
    )
    rows = [
        ("layout", manifest["recipe"]["shards"]["layout"]),
        ("samples", f"{manifest['samples']:,} in {len(manifest['shards']):,} shards"),
        ("size", f"{sizes[1] / 1e6:,.1f} MB, before {sizes[0] / 1e6:,.1f} MB"),
    ]
    rows += [(f"bad: {reason}", f"{count:,}") for reason, count in manifest["bad"]["pictures"].items()]
    if resumed:
        rows.append(("resumed", f"{resumed:,} shards were there already"))
    console.table(f"{source} converted into {job.folder}", rows)
    if not manifest["samples"]:
        raise PicsError(f"no sample of {source} could be converted", f"{job.folder / 'manifest.json'} lists why")


def show_inspection(reader: Reader, recipe: DatasetRecipe, split: str, limit: int | None) -> Inspection:
    """Look into a raw dataset and print what it holds."""
    from pics_cli.commands.results import Inspection
    from pics_cli.core.datasets.inspect import BOX_ALONE, inspect_dataset
    from pics_cli.core.datasets.pairs import MIN_AGREEMENT
    from pics_cli.core.datasets.readers.base import no_picture

    found = inspect_dataset(reader, limit)
    total, rows = len(reader), [("pictures", f"{found.pictures:,} of {len(reader):,} looked into")]
    if not total:
        raise no_picture(reader.annotations)
    rows.append(("objects", f"{found.objects:,}, {found.objects / found.pictures:.1f} a picture"))
    forms = [f"{count:,} {form}" for form, count in found.masks.most_common()]
    rows.append(("masks", ", ".join(forms) or "none"))
    if found.masks[BOX_ALONE]:
        rows.append(("", "objects without a mask are never chosen: `pics annotate` makes masks from boxes"))
    share = f" ({found.crowds / found.objects:.0%})" if found.objects else ""
    rows.append(("crowds", f"{found.crowds:,}{share}; pairs.crowd: {recipe.pairs.crowd}"))
    if found.ignored:
        rows.append(("ignored", f"{found.ignored:,}"))
    if found.agreements:
        ranked, low = sorted(found.agreements), sum(value < MIN_AGREEMENT for value in found.agreements)
        worst = f"median {ranked[len(ranked) // 2]:.2f}, lowest {ranked[0]:.2f}"
        rows.append(("box against mask", f"IoU {worst}; {low:,} of {len(ranked):,} below {MIN_AGREEMENT}"))
    if found.sizes:
        by_area = sorted(found.sizes.elements(), key=lambda size: (size[0] * size[1], size))
        smallest, middle, largest = ("x".join(map(str, by_area[i])) for i in (0, len(by_area) // 2, -1))
        rows.append(("picture sizes", f"{smallest} to {largest}, median {middle} ({len(found.sizes):,} different)"))
    names = [f"{name} {count:,}" for name, count in found.categories.most_common(8)]
    more = f" and {len(found.categories) - 8:,} more" if len(found.categories) > 8 else ""
    rows.append(("categories", (", ".join(names) or "none named") + more))
    rows += [(f"bad: {why}", f"{count:,}, such as {found.examples[why]}") for why, count in found.faults.most_common()]
    console.table(f"{recipe.name} {split}: what it holds", rows, only=True)
    return Inspection(
        pictures=found.pictures,
        objects=found.objects,
        masks=found.masks,
        crowds=found.crowds,
        ignored=found.ignored,
        categories=found.categories,
        faults=found.faults,
    )
