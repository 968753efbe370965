"""What the user reads when `pics build-shards` has built."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pics_cli import console
from pics_cli.errors import PicsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pics_cli.core.datasets.build_job import BuildJob, BuildProgress
    from pics_cli.core.datasets.build_range import RangeReport
    from pics_cli.core.datasets.readers.base import Reader
    from pics_cli.core.recipes.dataset import DatasetRecipe

# The share of crowds above which they are told: COCO has one in a hundred.
_MANY_CROWDS = 0.2


def build_rows(
    manifest: dict[str, Any], reader: Reader, recipe: DatasetRecipe, progress: BuildProgress
) -> list[tuple[str, str]]:
    size = sum(shard["bytes"] for shard in manifest["shards"])
    per_sample = f" ({size / manifest['samples'] / 1e3:,.0f} kB a sample)" if manifest["samples"] else ""
    rows = [
        ("pictures", f"{manifest['pictures']:,} of {manifest['of_pictures']:,}"),
        ("kept", f"{manifest['samples']:,} in {len(manifest['shards']):,} shards, {size / 1e6:,.1f} MB{per_sample}"),
    ]
    rows += count_rows(manifest["skipped"], manifest["bad_pictures"], manifest.get("noted", {}), reader, recipe)
    if progress.resumed:
        rows.append(("resumed", f"{progress.resumed:,} shards were there already"))
    return rows


def count_rows(
    skipped: Mapping[str, int],
    bad: Sequence[Mapping[str, Any]],
    noted: Mapping[str, int],
    reader: Reader,
    recipe: DatasetRecipe,
) -> list[tuple[str, str]]:
    """Why pictures gave no sample, each reason of bad ones with the first of them, and what was left out or noted."""
    from pics_cli.core.datasets.build_sample import NOTES
    from pics_cli.core.datasets.pairs import SKIP_REASONS

    ranked = sorted(skipped.items(), key=lambda entry: -entry[1])
    rows = [(f"skipped: {reason}", f"{count:,} ({SKIP_REASONS[reason]})") for reason, count in ranked]
    first = {entry["reason"]: entry for entry in reversed(bad)}
    for reason, count in sorted(Counter(entry["reason"] for entry in bad).items()):
        rows.append((f"bad: {reason}", f"{count:,}, such as {first[reason]['item']}: {first[reason]['detail']}"))
    for reason, count in reader.bad_records.counts.items():
        line = next((line for line in reader.bad_records.lines if line.startswith(f"{reason}: ")), "")
        rows.append((f"bad records: {reason}", f"{count:,}, such as {line.partition(': ')[2]}"))
    marked, of = reader.crowds or (0, 0)
    if recipe.pairs.crowd == "drop" and marked > _MANY_CROWDS * of:
        share = f"all {of:,}" if marked == of else f"{marked:,} of {of:,}"
        rows.append(("crowds", f"{share} objects are marked as crowds and left out; --set pairs.crowd=keep takes them"))
    return rows + [(f"noted: {note}", f"{count:,} {NOTES[note]}") for note, count in noted.items()]


def keep_build(
    job: BuildJob, manifest: Mapping[str, Any], reader: Reader, resumed: int, report: RangeReport | None = None
) -> None:
    """The result of a build, or of a range of one, of which the folder may hold a part only."""
    from pics_cli.commands.results import Build

    complete = bool(manifest["complete"])
    console.result(
        Build(
            folder=job.folder,
            complete=complete,
            pictures=manifest["pictures"] if complete else None,
            samples=manifest["samples"] if complete else None,
            shards=len(manifest["shards"]) if report is None else report.of_shards - report.missing,
            bytes=sum(shard["bytes"] for shard in manifest["shards"]) if complete else None,
            resumed=resumed,
            skipped=manifest["skipped"] if complete else {},
            bad=manifest["bad"]["pictures"] if complete else {},
            bad_records=reader.bad_records.counts,
            in_use=[] if report is None else report.in_use,
        )
    )


def no_sample(manifest: Mapping[str, Any], split: str) -> PicsError:
    """That no picture of a split gave a sample, with what to do about the likeliest reason."""
    bad = manifest["bad"]["pictures"]
    reasons = {**manifest["skipped"], **bad}
    if "box_mask_disagree" in reasons:
        hint = (
            "are boxes x, y, width, height, and run lengths by columns? Where the masks are right: "
            "--set pairs.box_mask_disagree=mask"
        )
    elif "missing_image" in reasons:
        hint = (
            f"source.splits.{split}.images of the recipe says where pictures lie in the raw folder; when that is "
            "mended: --overwrite"
        )
    elif bad:
        hint = "manifest.json lists the bad ones; the others: --contact-sheet FILE.png or a lower --area-ratio"
    else:
        hint = "lower --area-ratio, raise --limit or look at --contact-sheet FILE.png"
    counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    return PicsError(f"no picture gave a sample: {counts}", hint)
