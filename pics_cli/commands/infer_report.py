"""What the user reads when `pics infer` is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pics_cli import console

if TYPE_CHECKING:
    from pics_cli.core.inference.plan import InferenceJob
    from pics_cli.core.inference.worker import InferenceReport

# Lines of a kind that are shown, of many.
_SHOWN_NOTES = 10


def show_report(job: InferenceJob, report: InferenceReport) -> None:
    """Print a table of what was made and where, the best candidates, and what the user should look at."""
    from pics_cli.commands.results import Composites, FailedSample
    from pics_cli.core.inference.pick import reasons

    console.result(
        Composites(
            output=job.output,
            samples=report.samples,
            written=report.written,
            finished_before=report.finished_before,
            seconds=report.seconds,
            peak_memory=report.peak[0],
            peak_memory_of=report.peak[1],
            changed_outside=report.changed,
            layer_differences=report.differing if job.layers else None,
            best={name: scores[0].candidate for name, scores in report.picks},
            notes=[*report.remarks, *(f"{name}: {note}" for name, note in report.notes)],
            failures=[FailedSample(id=each.id, reason=each.reason, detail=each.detail) for each in report.failures],
            sheet=job.sheet,
        )
    )
    console.table(str(job.output), _rows(job, report))
    for name, scores in report.picks[:_SHOWN_NOTES]:
        text = f"{name}: candidate {scores[0].candidate} is the best of {len(scores)}: {reasons(scores)}"
        console.show(console.printable(text))
    if len(report.picks) > _SHOWN_NOTES:
        console.show(f"and {len(report.picks) - _SHOWN_NOTES:,} more: `rank` and `metrics` in the records")
    for remark in report.remarks:
        console.note(remark)
    for name, note in report.notes[:_SHOWN_NOTES]:
        console.note(f"{name}: {note}")
    if len(report.notes) > _SHOWN_NOTES:
        console.note(f"and {len(report.notes) - _SHOWN_NOTES:,} more like that: `cutouts` and `notes` in the records")
    for failure in report.failures if report.samples > 1 else ():  # the one there is: in the error
        console.note(f"failed: {failure.id}: {failure.detail} ({failure.reason})")


def _rows(job: InferenceJob, report: InferenceReport) -> list[tuple[str, str]]:
    rows = [("samples", f"{report.samples:,}"), ("pictures made", f"{report.written:,}")]
    if report.finished_before:
        rows.append(("there already", f"{report.finished_before:,}"))
    rows += [(f"failed: {reason}", f"{count:,}") for reason, count in report.reasons.most_common()]
    if report.written:
        owner = "GPU" if report.peak[1] == "cuda" else "process"
        rows += [
            ("seconds a picture", f"{report.seconds / report.written:,.2f}"),
            ("peak memory", f"{report.peak[0] / 1e9:,.2f} GB ({owner})"),
            ("changed outside the regions", f"{report.changed:,} pixels{', before JPEG' * (job.format == 'jpeg')}"),
        ]
    if report.layered:
        rows.append(("layers recombine", f"{report.differing:,} values differ"))
    rows.append(("pictures", str(job.output / "composed")))
    if job.layers:
        rows.append(("layers", str(job.output / "layers")))
    if job.grid:
        rows.append(("grids", str(job.output / "grids")))
    if job.pick is not None:
        rows.append(("best of each", str(job.output / "best")))
    if job.explain:
        rows.append(("explained", str(job.output / "explain")))
    if job.sheet is not None:
        rows.append(("sheet", str(job.sheet)))
    return [*rows, ("records", str(job.output / "manifest.jsonl"))]
