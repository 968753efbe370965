"""`report.html`: one self-contained file of bounded size with tables, plots, pictures and a page of every case."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.published import published_table
from pics_cli.core.evaluation.records import ExampleRecord
from pics_cli.core.evaluation.report_cases import CaseFigures
from pics_cli.core.evaluation.report_gallery import GalleryEntry, smaller_galleries
from pics_cli.core.evaluation.report_heat import heat_maps
from pics_cli.core.evaluation.report_plots import plot_differences, plot_difficulty, plot_distribution
from pics_cli.core.evaluation.results import format_cell, format_heading, format_unavailable, known_metrics
from pics_cli.core.evaluation.subsets import SUBSETS
from pics_cli.core.runtime.files import AtomicFile

REPORT = "report.html"
# Of the file: what a mail takes. Its plots have a bounded number of dots, its pictures get coarser and fewer.
MOST_BYTES = 15_000_000
# Metrics whose distributions are plotted, where they were computed.
_PLOTTED = ("psnr_region", "ssim_region", "seam", "shadow", "sharpness", "ceiling")

_log = logging.getLogger(__name__)


def write_report(
    folder: Path,
    results: Mapping[str, Any],
    records: Sequence[ExampleRecord],
    gallery: Sequence[GalleryEntry],
    most_bytes: int = MOST_BYTES,
) -> None:
    """Write the report of results, as `results.json` has them, and records of the examples that were measured.

    A file of more than `most_bytes` has coarser pictures, then fewer ones; the page says so.
    """
    metrics = known_metrics(results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    similarity = {method: matrix for method, matrix in results["similarity"].items() if matrix}
    contents = {
        "results": results,
        "metrics": metrics,
        "headings": {name: format_heading(name) for name in metrics},
        "descriptions": {name: METRICS[name].description for name in metrics},
        "format_cell": format_cell,
        "distributions": [plot_distribution(results, records, name) for name in _PLOTTED if name in metrics],
        "difficulty": [
            svg for name in _PLOTTED if name in metrics and (svg := plot_difficulty(results, records, name))
        ],
        "heat": heat_maps(results, metrics),
        "unavailable": format_unavailable(results),
        "relations": SUBSETS,
        "differences": plot_differences(results, metrics),
        "similarity": similarity,
        "published": published_table(results),
        "most_megabytes": most_bytes / 1e6,
    }
    template = environment.get_template("report.html.j2")
    figures = CaseFigures(results, records, metrics)
    for kept, reduced in smaller_galleries(gallery):
        data, listed = figures.to_json(kept)
        text = template.render(**contents, gallery=kept, reduced=reduced, cases=data, listed=listed).encode()
        if len(text) <= most_bytes:
            break
    else:
        _log.warning("%s: %.1f MB, for its tables and plots are many: no pictures", folder / REPORT, len(text) / 1e6)
    with AtomicFile(folder / REPORT) as file:
        file.write(text)
