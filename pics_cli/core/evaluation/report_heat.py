"""Heat maps of a report: metrics by relation, the shade by how good a value is among all methods and relations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.results import format_cell
from pics_cli.core.evaluation.subsets import SUBSETS


class HeatCell(NamedTuple):
    """A mean as text, and its shade: from 0, the worst of its metric, to 1, the best; None where there is no mean."""

    text: str
    shade: float | None


def heat_maps(results: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, dict[str, list[HeatCell]]]:
    """By method and metric, a cell for each relation that there is; metrics without a better side are left out.

    The shade of a metric is linear between its worst and its best mean, so that methods can be compared.
    """
    subsets = [name for name in SUBSETS if name in results["figures"]]
    maps: dict[str, dict[str, list[HeatCell]]] = {method: {} for method in results["methods"]}
    for name in metrics:
        sign = {"more": 1, "less": -1}.get(METRICS[name].better)
        means = [results["figures"][s][m][name]["mean"] for s in subsets for m in results["methods"]]
        known = [sign * mean for mean in means if mean is not None] if sign else []
        if sign is None or not known:
            continue
        low, high = min(known), max(known)
        for method, rows in maps.items():
            figures = [results["figures"][subset][method][name] for subset in subsets]
            rows[name] = [
                HeatCell(
                    format_cell(figure).partition(" ")[0],
                    None if figure["mean"] is None else (sign * figure["mean"] - low) / max(high - low, 1e-12),
                )
                for figure in figures
            ]
    return maps
