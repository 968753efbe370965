"""Figures of many cases put together: means with intervals by group, differences of methods; and the files of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pics_cli.core.evaluation.metrics import MEASURES
from pics_cli.core.evaluation.statistics import Estimate, difference, estimate
from pics_cli.core.evaluation.subsets import ALL, STRATA
from pics_cli.core.runtime.files import AtomicFile, write_json
from pics_cli.errors import PicsError

Floats = npt.NDArray[np.float64]
Record = Mapping[str, Any]

RESULTS, TABLE, EACH = "results.json", "table.md", "per_sample.parquet"
SCHEMA = 1


def results_of(
    records: Sequence[Record], asked: Sequence[str], names: Sequence[str], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything, as `results.json` has it.

    Args:
        records: of all cases, in their order.
        asked: the methods, in their order.
        names: of the figures.
        provenance: what they were made from.

    Raises:
        PicsError: no case could be measured, or no method has a picture of any.
    """
    good = [record for record in records if "bad" not in record]
    bad = Counter(record["bad"]["reason"] for record in records if "bad" in record)
    if not good:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(bad.items()))
        raise PicsError(f"no case could be measured: {why}", "look at the samples with pics build-shards --check DIR")
    methods = [name for name in asked if any(name in record["values"] for record in good)]
    missed = {name: Counter(r["failed"][name]["reason"] for r in good if name in r["failed"]) for name in asked}
    if not methods:
        first = next(iter(good[0]["failed"].values()))["detail"]
        ids = ", ".join(record["key"] for record in good[:3])
        raise PicsError(f"no method has a picture of any case; the first: {first}", f"cases are called {ids}, …")
    groups = {ALL: good} | {name: some for name in STRATA if (some := [r for r in good if r["stratum"] == name])}
    seed = int(provenance["recipe"]["seed"])
    return {
        "schema": SCHEMA,
        "kind": "pics-eval",
        **provenance,
        "measured": len(good),
        "bad": dict(sorted(bad.items())),
        "missed": {name: dict(sorted(reasons.items())) for name, reasons in missed.items() if reasons},
        "strata": {name: len(some) for name, some in groups.items()},
        "methods": methods,
        "figures": {
            group: {m: {f: plain(estimate(column(some, m, f), seed)) for f in names} for m in methods}
            for group, some in groups.items()
        },
        "differences": {
            f"{a} minus {b}": {
                group: {f: plain(difference(column(some, a, f), column(some, b, f), seed)) for f in names}
                for group, some in groups.items()
            }
            for a, b in combinations(methods, 2)
        },
        "similarity": {m: _similarity(good, m) for m in methods},
    }


def column(records: Sequence[Record], method: str, figure: str) -> Floats:
    """A figure of every case by a method, its seeds' mean, float64 [N]; nan where there is none."""
    found = []
    for record in records:
        values = [v for v in record["values"].get(method, {}).get(figure, ()) if v is not None]
        found.append(float(np.mean(values)) if values else math.nan)
    return np.array(found, np.float64)


def plain(one: Estimate) -> dict[str, float | int | None]:
    """An estimate for JSON."""
    mean, low, high = (round(value, 5) if math.isfinite(value) else None for value in one[:3])
    return {"mean": mean, "low": low, "high": high, "cases": one.scenes}


def _similarity(records: Sequence[Record], method: str) -> list[list[float]] | None:
    """Mean similarity of region i to reference j over cases of two objects."""
    found = [r["similarity"][method] for r in records if r["objects"] == 2 and method in r["similarity"]]
    if not found:
        return None
    mean: list[list[float]] = np.mean(found, axis=0).round(4).tolist()
    return mean


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """`results.json` and `table.md`; the figures of every case are in `per_sample.parquet`, see `write_each`."""
    write_json(folder / RESULTS, results)
    with AtomicFile(folder / TABLE) as file:
        left = [f"{count:,} cases left out: {reason}" for reason, count in results["bad"].items()]
        for name, reasons in results["missed"].items():
            left += [f"{name}: no picture of {count:,} cases: {reason}" for reason, count in reasons.items()]
        file.write("\n".join([table(results), *left, ""] if left else [table(results)]).encode())


def table(results: Mapping[str, Any], names: Sequence[str] = (), groups: Sequence[str] = ()) -> str:
    """Figures by group and method as Markdown, the mean and half of its interval.

    Args:
        results: as `results.json` has them.
        names: of the figures; empty: all that there are.
        groups: of cases; empty: all.
    """
    every = results["figures"][ALL]
    told = [name for name in next(iter(every.values())) if any(found[name]["cases"] for found in every.values())]
    shown = [name for name in names if name in told] or told
    head = ["cases", "method", *map(heading, shown)]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---', '---', *(['---:'] * len(shown))])} |"]
    for group in groups or results["figures"]:
        for at, (method, found) in enumerate(results["figures"][group].items()):
            title = f"{group} ({results['strata'][group]:,})" if at == 0 else ""
            lines.append(f"| {title} | {method} | {' | '.join(cell(found[name]) for name in shown)} |")
    return "\n".join(lines) + "\n"


def heading(name: str) -> str:
    """Title, unit, and an arrow to the better side."""
    one = MEASURES[name]
    unit = f", {one.unit}" if one.unit not in ("", "share") else ""
    return f"{one.title}{unit} {dict(more='↑', less='↓', neither='→ 1')[one.better]}"


def cell(one: Mapping[str, Any], sign: str = "") -> str:
    """A mean and half of its interval."""
    if one["mean"] is None:
        return "-"
    half = (one["high"] - one["low"]) / 2
    digits = 1 if abs(one["mean"]) >= 100 else 2 if abs(one["mean"]) >= 1 else 3
    return f"{one['mean']:{sign}.{digits}f} ±{half:.{digits}f}"


_FACTS = ("number", "key", "stratum", "relation", "iou", "objects")


def write_each(folder: Path, records: Sequence[Record], names: Sequence[str]) -> None:
    """`per_sample.parquet`: number, key, stratum, relation, iou and objects of the case, method, seed, and figures."""
    columns: dict[str, list[Any]] = {name: [] for name in (*_FACTS, "method", "seed", *names)}
    for record in records:
        for method, values in record.get("values", {}).items():
            for seed in range(len(next(iter(values.values()), ()))):
                for name in _FACTS:
                    columns[name].append(record[name])
                columns["method"].append(method)
                columns["seed"].append(seed)
                for name in names:
                    columns[name].append(values[name][seed])
    text, whole = pa.string(), pa.int64()
    kinds = {"number": whole, "key": text, "stratum": text, "relation": text, "objects": whole, "method": text,
             "seed": whole}  # fmt: skip
    arrays = {name: pa.array(values, kinds.get(name, pa.float64())) for name, values in columns.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink)
    with AtomicFile(folder / EACH) as file:
        file.write(sink.getvalue().to_pybytes())


def read_each(path: Path) -> list[dict[str, Any]]:
    """Records of cases, as `results.column` takes them, from such a table.

    Raises:
        PicsError: it is not there, or none.
    """
    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise PicsError(f"{path}: cannot be read: {error}", "it lies beside the results.json of `pics eval`") from None
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for row in rows:
        record = found.setdefault((row["number"], row["key"]), {**{name: row[name] for name in _FACTS}, "values": {}})
        values = record["values"].setdefault(row["method"], {})
        for name, value in row.items():
            if name not in (*_FACTS, "method", "seed"):
                values.setdefault(name, []).append(value)
    return list(found.values())
