"""Figures of every case for the pages of a report, as JSON that stands in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pics_cli.core.evaluation.records import ExampleRecord, metric_column
from pics_cli.core.evaluation.report_gallery import GalleryEntry
from pics_cli.core.evaluation.results import format_heading

# Bytes of the figures, at most: enough for 1,000 cases by ten methods.
_MOST_BYTES = 4_000_000
_DIGITS = 4


class CaseFigures:
    """Figures of measured cases.

    Args:
        results: as `results.json` has them.
        records: of the cases.
        metrics: by name.
    """

    def __init__(self, results: Mapping[str, Any], records: Sequence[ExampleRecord], metrics: Sequence[str]) -> None:
        self._methods, self._metrics = results["methods"], metrics
        self._keys = [record.key for record in records]
        columns = {
            method: np.array([metric_column(records, method, name) for name in metrics]) for method in self._methods
        }
        self._lines = []
        for row, record in enumerate(records):
            figures = [
                record.failed[method].reason
                if method in record.failed
                else [_rounded(value) for value in columns[method][:, row].tolist()]
                for method in self._methods
            ]
            difficulty = None if record.difficulty is None else _rounded(record.difficulty)
            self._lines.append(_dump([record.key, record.stratum, record.objects, difficulty, figures]))

    def to_json(self, gallery: Sequence[GalleryEntry], most_bytes: int = _MOST_BYTES) -> tuple[str, int]:
        """What the page's script reads, to stand between tags of HTML, and how many cases it has.

        The JSON has `methods`; `metrics`, headings by name; `galleries`, keys and reasons by method; and `cases`: key,
        subset, number of objects, difficulty, and for each method a list of its metrics or why it has no picture. Of
        more than `most_bytes`, cases of the gallery come before others.
        """
        pictured = {entry.key for entry in gallery}
        kept, size = list[int](), 0
        for row in sorted(range(len(self._keys)), key=lambda row: self._keys[row] not in pictured):
            size += len(self._lines[row])
            if size > most_bytes:
                break
            kept.append(row)
        head = _dump(
            {
                "methods": self._methods,
                "metrics": {name: format_heading(name) for name in self._metrics},
                "galleries": {method: _gallery_of(method, gallery) for method in self._methods},
            }
        )
        cases = ",\n".join(self._lines[row] for row in sorted(kept))
        return f'{head[:-1]},"cases":[\n{cases}]}}', len(kept)


def _gallery_of(method: str, gallery: Sequence[GalleryEntry]) -> list[list[str]]:
    shown = sorted(
        (entry.why[method].place, entry.key, entry.why[method].text) for entry in gallery if method in entry.why
    )
    return [[key, text] for _, key, text in shown]


def _rounded(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    number = float(f"{value:.{_DIGITS}g}")
    return int(number) if number.is_integer() else number


def _dump(data: Any) -> str:
    """JSON without what HTML would take for a tag."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
