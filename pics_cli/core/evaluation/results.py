"""Metrics of many examples put together: means with intervals by subset, differences of methods; and their files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.records import ExampleRecord, metric_column, read_json
from pics_cli.core.evaluation.statistics import Estimate, bootstrap_difference, bootstrap_mean
from pics_cli.core.evaluation.strata import difficulty_limits, split_records
from pics_cli.core.evaluation.subsets import ALL
from pics_cli.core.runtime.files import AtomicFile, write_json
from pics_cli.errors import PicsError

RESULTS, TABLE = "results.json", "table.md"
SCHEMA, _KIND = 1, "pics-eval"
# Letters that Markdown or the HTML in it would take for something else.
_MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*[]|~$"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_ARROWS = {"more": "↑", "less": "↓", "neither": "→ 1"}


class _Figure(msgspec.Struct):
    mean: float | None
    low: float | None
    high: float | None
    cases: int


class _Model(msgspec.Struct):
    name: str
    label: str
    recipe_hash: str | None
    trained_steps: int
    image_size: int


class _Results(msgspec.Struct):
    """What readers of a `results.json` rely on."""

    name: str
    measured: int
    data: dict[str, Any]
    recipe_hash: str
    methods: list[str]
    strata: dict[str, int]
    figures: dict[str, dict[str, dict[str, _Figure]]]
    models: list[_Model] = []


def summarize(
    records: Sequence[ExampleRecord], requested: Sequence[str], metrics: Sequence[str], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """The contents of `results.json`.

    Args:
        records: of all examples, in their order.
        requested: the methods, in their order.
        metrics: by name.
        provenance: recipe, data, models and versions; stands in the results.

    Raises:
        PicsError: no example could be measured; no method has a picture of any, or one of `peers` has none.
    """
    good = [record for record in records if record.bad is None]
    bad = Counter(record.bad.reason for record in records if record.bad is not None)
    if not good:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(bad.items()))
        first = next(record.bad.detail for record in records if record.bad is not None)
        raise PicsError(
            f"no case could be measured: {why}; the first: {first}",
            "look at the samples with pics build-shards --check DIR",
        )
    methods = [name for name in requested if any(name in record.values for record in good)]
    if not methods:
        first = next(iter(good[0].failed.values())).detail
        keys = ", ".join(record.key for record in good[:3])
        raise PicsError(f"no method has a picture of any case; the first: {first}", f"cases are called {keys}, …")
    if absent := next((name for name in provenance.get("peers", ()) if name not in methods), None):
        first, keys = good[0].failed[absent].detail, ", ".join(record.key for record in good[:3])
        raise PicsError(
            f"{absent}: no picture of any of {len(good):,} cases; the first: {first}",
            f"cases are called {keys}, …; the other methods' are measured: mend the pictures, and the same command "
            "measures the rest",
        )
    missed = {name: Counter(r.failed[name].reason for r in good if name in r.failed) for name in requested}
    subsets = split_records(good)
    seed = int(provenance["recipe"]["seed"])
    columns = {
        (subset, method, metric): metric_column(members, method, metric)
        for subset, members in subsets.items()
        for method in methods
        for metric in metrics
    }
    return {
        "schema": SCHEMA,
        "kind": _KIND,
        **provenance,
        "measured": len(good),
        "bad": dict(sorted(bad.items())),
        "missed": {name: dict(sorted(reasons.items())) for name, reasons in missed.items() if reasons},
        "difficulty_limits": difficulty_limits(good),
        "strata": {name: len(members) for name, members in subsets.items()},
        "methods": methods,
        "figures": {
            s: {m: {f: _to_json(bootstrap_mean(columns[s, m, f], seed)) for f in metrics} for m in methods}
            for s in subsets
        },
        "differences": {
            f"{a} minus {b}": {
                s: {f: _to_json(bootstrap_difference(columns[s, a, f], columns[s, b, f], seed)) for f in metrics}
                for s in subsets
            }
            for a, b in combinations(methods, 2)
        },
        "similarity": {method: _mean_similarity(good, method) for method in methods},
    }


def _to_json(estimate: Estimate) -> dict[str, float | int | None]:
    mean, low, high = (round(value, 5) if math.isfinite(value) else None for value in estimate[:3])
    return {"mean": mean, "low": low, "high": high, "cases": estimate.size}


def _mean_similarity(records: Sequence[ExampleRecord], method: str) -> list[list[float]] | None:
    """Mean similarity of region i to reference j over examples of two objects."""
    matrices = [r.similarity[method] for r in records if r.objects == 2 and method in r.similarity]
    if not matrices:
        return None
    mean: list[list[float]] = np.mean(matrices, axis=0).round(4).tolist()
    return mean


def write_results(folder: Path, results: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
    """Write `results.json` and `table.md`, with these lines below its table."""
    write_json(folder / RESULTS, results)
    with AtomicFile(folder / TABLE) as file:
        lines = [f"{count:,} cases left out: {as_markdown(reason)}" for reason, count in results["bad"].items()]
        for name, reasons in results["missed"].items():
            measured = f"{results['measured']:,} cases"
            counts = [f"no picture of {count:,} of {measured}: {as_markdown(why)}" for why, count in reasons.items()]
            lines += [f"{as_markdown(name)}: {words}" for words in counts]
        lines += notes
        file.write("\n".join([format_table(results), *lines, *([""] if lines else [])]).encode())


def read_results(path: Path) -> dict[str, Any]:
    """The contents of a `results.json`.

    Raises:
        PicsError: it cannot be read, or is something else.
    """
    results = read_json(path, "name a results.json of `pics eval`")
    if results.get("kind") != _KIND:
        raise PicsError(f"{path}: not the results of `pics eval`", "name a results.json")
    try:
        msgspec.convert(results, _Results)
    except msgspec.ValidationError as error:
        raise PicsError(f"{path}: not the results of `pics eval`: {error}", "name a results.json") from None
    return results


def known_metrics(results: Mapping[str, Any]) -> list[str]:
    """Names of the metrics that some method has of some example."""
    by_method = results["figures"][ALL].values()
    return [name for name in next(iter(by_method)) if any(metrics[name]["cases"] for metrics in by_method)]


def format_unavailable(results: Mapping[str, Any]) -> str:
    """Metrics that were not computed and why, reason by reason."""
    names: dict[str, list[str]] = {}
    for name, why in results["unavailable"].items():
        names.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(group)} ({why})" for why, group in names.items())


def format_table(results: Mapping[str, Any], metrics: Sequence[str] = (), subsets: Sequence[str] = ()) -> str:
    """Metrics by subset and method as Markdown, the mean and half of its interval.

    Args:
        results: as `results.json` has them.
        metrics: by name; empty: all that have values.
        subsets: of examples; empty: all.
    """
    known = known_metrics(results)
    shown = [name for name in metrics if name in known] or known
    head = ["cases", "method", *map(format_heading, shown)]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---', '---', *(['---:'] * len(shown))])} |"]
    for subset in subsets or results["figures"]:
        for row, (method, values) in enumerate(results["figures"][subset].items()):
            title = f"{subset} ({results['strata'][subset]:,})" if row == 0 else ""
            lines.append(
                f"| {title} | {as_markdown(method)} | {' | '.join(format_cell(values[name]) for name in shown)} |"
            )
    return "\n".join(lines) + "\n"


def as_markdown(text: str) -> str:
    """A text that stands for itself in a cell: a name may hold whatever a folder may be called."""
    return "".join(_MARKDOWN.get(letter, letter if letter.isprintable() else " ") for letter in text)


def format_heading(name: str) -> str:
    """Title of a metric, its unit, and an arrow to the better side."""
    metric = METRICS[name]
    unit = f", {metric.unit}" if metric.unit not in ("", "share") else ""
    return f"{metric.title}{unit} {_ARROWS[metric.better]}"


def format_cell(estimate: Mapping[str, Any], sign: str = "") -> str:
    """A mean and half of its interval, `20.44 ±0.12`, of one case `20.44`; `sign`: `+` to show it always."""
    mean = estimate["mean"]
    if mean is None:
        return "-"
    half = (estimate["high"] - estimate["low"]) / 2
    digits = 1 if abs(mean) >= 100 else 2 if abs(mean) >= 1 else 3
    interval = "" if estimate.get("cases") == 1 else f" ±{half:.{digits}f}"  # nothing is known of how one case varies
    return f"{mean:{sign}.{digits}f}{interval}"
