"""Two evaluations of the same examples against each other: paired differences with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.records import PER_SAMPLE, ExampleRecord, metric_column, read_per_sample
from pics_cli.core.evaluation.results import read_results
from pics_cli.core.evaluation.statistics import Estimate, bootstrap_difference
from pics_cli.core.evaluation.strata import split_records
from pics_cli.core.runtime.manifest import differences
from pics_cli.errors import PicsError


class MetricDifference(NamedTuple):
    """A metric of a method in both evaluations on a subset: the first minus the second."""

    subset: str
    method: str
    metric: str
    difference: Estimate


class Comparison(NamedTuple):
    """How many examples two evaluations have in common, how they differ on them, and what a reader should know."""

    common: int
    differences: list[MetricDifference]
    warnings: list[str]


def compare(first_path: Path, second_path: Path) -> Comparison:
    """Compare two `results.json`, by the tables beside them.

    Methods of one name are compared with each other; where no name is in both, the first of each.

    Raises:
        PicsError: a file that is something else, or no example in common.
    """
    first, second = read_results(first_path), read_results(second_path)
    records_1, records_2 = (read_per_sample(path.parent / PER_SAMPLE) for path in (first_path, second_path))
    common = [key for key in records_1 if key in records_2]
    if not common:
        keys_1, keys_2 = (", ".join(list(records)[:3]) for records in (records_1, records_2))
        both = f"{keys_1}, … in {first_path}, {keys_2}, … in {second_path}"
        raise PicsError(f"no case in common: {both}", "compare runs of one recipe")
    words = f"{first_path} has", f"{second_path} has"
    warnings = [f"other data: {line}" for line in differences(first["data"], second["data"], words)]
    if first["recipe_hash"] != second["recipe_hash"]:
        warnings.insert(0, f"other recipes, recipe_hash: {first['recipe_hash'][:16]} and {second['recipe_hash'][:16]}")
    if len(common) < max(len(records_1), len(records_2)):
        warnings.append(f"{len(common)} cases in common of {len(records_1)} and {len(records_2)}")
    pairs = [(name, name) for name in first["methods"] if name in second["methods"]]
    groups = split_records([records_1[key] for key in common])
    lines = []
    for a, b in pairs or [(first["methods"][0], second["methods"][0])]:
        metrics = [name for name in METRICS if _has(records_1, a, name) and _has(records_2, b, name)]
        for subset, left in groups.items():
            right = [records_2[record.key] for record in left]
            for name in metrics:
                lead = bootstrap_difference(metric_column(left, a, name), metric_column(right, b, name))
                if lead.size:
                    lines.append(MetricDifference(subset, a if a == b else f"{a} / {b}", name, lead))
    return Comparison(len(common), lines, warnings)


def _has(records: Mapping[str, ExampleRecord], method: str, metric: str) -> bool:
    return any(metric in record.values.get(method, ()) for record in records.values())
