"""What the user reads when `pics eval` is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pics_cli import console

if TYPE_CHECKING:
    from pics_cli.core.evaluation.evaluator import EvaluationJob

# Metrics that the terminal shows where a recipe names none; the files have all.
SHOWN = ("psnr_region", "ssim_region", "seam", "shadow", "order", "identity", "missing", "sharpness")


def show_results(job: EvaluationJob, results: dict[str, Any]) -> None:
    """The table on stdout, and what is to be known of it on stderr."""
    from pics_cli.commands.results import Evaluation
    from pics_cli.core.evaluation.published import published_table
    from pics_cli.core.evaluation.report import REPORT
    from pics_cli.core.evaluation.results import RESULTS, format_cell, format_heading, format_unavailable, known_metrics
    from pics_cli.core.evaluation.subsets import ALL

    keys = ("name", "measured", "figures", "sets", "unavailable", "bad", "missed", "warnings")
    console.result(Evaluation(results=job.output / RESULTS, **{key: results[key] for key in keys}))
    known = known_metrics(results)
    wanted = job.recipe.metrics[: len(SHOWN)] or SHOWN
    names = [name for name in wanted if name in known] or known[: len(SHOWN)]
    title = f"{results['name']}: {results['measured']:,} cases, mean ± half of its 95 % interval"
    rows = [
        (method, *(format_cell(values[name]) for name in names)) for method, values in results["figures"][ALL].items()
    ]
    console.table(title, rows, ("method", *map(format_heading, names)), right=range(1, len(names) + 1))
    if (published := published_table(results)) is not None:
        columns = ("method", *published.headings)
        console.table("beside published figures", published.rows, columns, right=range(1, len(columns)))
        for note in published.notes:
            console.note(note)
    for kind, methods in results["sets"].items():
        for method, entry in methods.items():
            few = f"; {entry['pictures']:,} pictures, fewer than 2,048: only of use among these"
            mean, low, high = (entry["kernel"][key] for key in ("mean", "low", "high"))
            kernel = f"{mean:.4g}" + ("" if low is None else f" ({low:.4g} to {high:.4g})")
            frechet, distance = ("FID", "KID") if kind == "inception" else ("Fréchet", "kernel")
            values = f"{frechet} {entry['frechet']:.4g}, {distance} {kernel}"
            console.note(f"{kind} features, {method}: {values}{'' if entry['enough'] else few}")
    if results["unavailable"]:
        console.note(f"not computed: {format_unavailable(results)}")
    for line in results["warnings"]:
        console.note(f"warning: {line}")
    for reason, count in results["bad"].items():
        console.note(f"{count:,} cases could not be measured: {reason}")
    for method, missing in results["missed"].items():
        counts = ", ".join(f"{count:,} {reason}" for reason, count in missing.items())
        number = f"{sum(missing.values()):,} of {results['measured']:,} cases"
        console.note(f"warning: {method}: no picture of {number} ({counts}); its means are of the others")
    console.note(f"results: {job.output / RESULTS}, table.md, per_sample.parquet")
    console.note(f"report: {job.output / REPORT}")


def show_comparison(first: Path, second: Path) -> None:
    """Print how two results differ, of all cases; by relation and difficulty, too, where the user asks for more."""
    from pics_cli.commands.results import Comparison, Difference
    from pics_cli.core.evaluation.compare import compare
    from pics_cli.core.evaluation.metrics import METRICS
    from pics_cli.core.evaluation.subsets import ALL

    comparison = compare(first, second)
    differences = [
        Difference(
            subset=line.subset, method=line.method, metric=line.metric, mean=mean, low=low, high=high, cases=cases
        )
        for line in comparison.differences
        for mean, low, high, cases in (line.difference,)
    ]
    console.result(Comparison(cases=comparison.common, differences=differences, warnings=comparison.warnings))
    title = f"{first} minus {second}: {comparison.common:,} cases"
    rows = []
    shown = [line for line in comparison.differences if console.is_verbose() or line.subset == ALL]
    for line in shown:
        mean, low, high, count = line.difference
        is_better = {"more": mean > 0, "less": mean < 0}.get(METRICS[line.metric].better)
        clear = low > 0 or high < 0
        verdict = "" if not clear or is_better is None else ("better" if is_better else "worse")
        interval = f"{low:+.4g} to {high:+.4g}"
        rows.append((f"{line.subset} ({count})", line.method, line.metric, f"{mean:+.4g}", interval, verdict))
    columns = ("cases", "method", "metric", "difference", "95 % interval", "")
    console.table(title, rows, columns, right=[3], only=True)
    if left := len({line.subset for line in comparison.differences} - {line.subset for line in shown}):
        console.note(f"and the same by {left} subsets of the cases: --verbose shows them, --json has them")
    for text in comparison.warnings:
        console.note(f"warning: {text}")
