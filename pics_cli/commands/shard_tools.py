"""What `pics build-shards` does with shards that are there: check them, convert them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

from pics_cli.errors import PicsError


def check(folder: Path, workers: int) -> None:
    """Check every shard of a folder and tell what is wrong."""
    from pics_cli import console
    from pics_cli.core.datasets.check import check_folder, list_shards
    from pics_cli.core.runtime.engines import PictureCounter, local_executor

    shards, expected = list_shards(folder)
    total = sum(shard["samples"] for shard in expected.values())
    tally = PictureCounter()
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
    from pics_cli import console
    from pics_cli.core.datasets.check import list_shards
    from pics_cli.core.datasets.convert import Conversion, convert
    from pics_cli.core.recipes.dataset import Layout
    from pics_cli.core.runtime.engines import PictureCounter, local_executor
    from pics_cli.core.runtime.manifest import read_manifest

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
    job = Conversion(source, Path(out.replace("{split}", split)), layout, split, max_bad, overwrite)
    tally = PictureCounter()
    with (
        console.progress(f"convert {source.name}", "samples", lambda: console.State(tally.done, total, "")),
        local_executor(workers, tally) as executor,
    ):
        manifest, there = convert(job, executor, workers)
    sizes = [sum(path.stat().st_size for path in shards), sum(shard["bytes"] for shard in manifest["shards"])]
    rows = [
        ("layout", manifest["recipe"]["shards"]["layout"]),
        ("samples", f"{manifest['samples']:,} in {len(manifest['shards']):,} shards"),
        ("size", f"{sizes[1] / 1e6:,.1f} MB, before {sizes[0] / 1e6:,.1f} MB"),
    ]
    rows += [(f"bad: {reason}", f"{count:,}") for reason, count in manifest["bad"]["pictures"].items()]
    if there:
        rows.append(("resumed", f"{there:,} shards were there already"))
    console.table(f"{source} converted into {job.folder}", rows)
    if not manifest["samples"]:
        raise PicsError(f"no sample of {source} could be converted", f"{job.folder / 'manifest.json'} lists why")
