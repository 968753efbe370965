"""`report.html`: one self-contained file with tables, plots and a gallery of pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

from pics_cli.core.evaluation.examples import Example
from pics_cli.core.evaluation.methods import Method
from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.published import published_table
from pics_cli.core.evaluation.records import ExampleRecord, metric_column
from pics_cli.core.evaluation.report_heat import heat_maps
from pics_cli.core.evaluation.report_plots import plot_differences, plot_difficulty, plot_distribution
from pics_cli.core.evaluation.results import format_cell, format_heading, known_metrics
from pics_cli.core.evaluation.source_base import ExampleSource
from pics_cli.core.evaluation.subsets import SUBSETS
from pics_cli.core.images.image_io import RGB, encode_jpeg
from pics_cli.core.images.sheets import draw_box, object_colour, on_white
from pics_cli.core.runtime.files import AtomicFile
from pics_cli.errors import BadSample

REPORT = "report.html"
# Of the gallery: how many examples it shows of the best, the median and the worst, and the metric that ranks them.
_PER_RANK, _RANKED_BY = 3, "psnr_region"
# Metrics whose two best and two worst examples it shows, too.
_GALLERIES, _PER_GALLERY = ("ssim_region", "seam", "shadow", "order", "identity", "detail", "lpips_region"), 2
# Longer side of its pictures, in pixels, at most, and their JPEG quality: the file stays small.
_THUMBNAIL, _QUALITY = 256, 85
# Metrics whose distributions are plotted, where they were computed.
_PLOTTED = ("psnr_region", "ssim_region", "seam", "shadow", "sharpness", "ceiling")


@dataclass(frozen=True)
class GalleryPicture:
    """A method's picture as a data URL, None where the method has none; and the text below it."""

    name: str
    url: str | None
    text: str


@dataclass(frozen=True)
class GalleryEntry:
    """An example in the gallery: why it was chosen (such as `best`), and its pictures as data URLs."""

    why: str
    key: str
    subset: str
    inputs: str
    references: list[str]
    truth: str
    pictures: list[GalleryPicture]


def write_report(
    folder: Path, results: Mapping[str, Any], records: Sequence[ExampleRecord], gallery: Sequence[GalleryEntry]
) -> None:
    """Write the report of results, as `results.json` has them, and records of the examples that were measured."""
    metrics = known_metrics(results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    similarity = {method: matrix for method, matrix in results["similarity"].items() if matrix}
    text = environment.get_template("report.html.j2").render(
        results=results,
        metrics=metrics,
        headings={name: format_heading(name) for name in metrics},
        descriptions={name: METRICS[name].description for name in metrics},
        format_cell=format_cell,
        distributions=[plot_distribution(results, records, name) for name in _PLOTTED if name in metrics],
        difficulty=[svg for name in _PLOTTED if name in metrics and (svg := plot_difficulty(results, records, name))],
        heat=heat_maps(results, metrics),
        relations=SUBSETS,
        differences=plot_differences(results, metrics),
        similarity=similarity,
        published=published_table(results),
        gallery=gallery,
    )
    with AtomicFile(folder / REPORT) as file:
        file.write(text.encode())


def choose_examples(
    records: Sequence[ExampleRecord], method: str, metrics: Sequence[str]
) -> list[tuple[str, ExampleRecord]]:
    """Examples for the gallery, and why: a method's best, median and worst ones, and those of some metrics."""
    known = (name for name in metrics if not np.isnan(metric_column(records, method, name)).all())
    values = metric_column(records, method, _RANKED_BY if _RANKED_BY in metrics else next(known, _RANKED_BY))
    ranked = [int(row) for row in np.argsort(-values, kind="stable") if np.isfinite(values[row])]
    middle = max((len(ranked) - _PER_RANK) // 2, 0)
    chosen = {
        "best": ranked[:_PER_RANK],
        "median": ranked[middle : middle + _PER_RANK],
        "worst": ranked[-_PER_RANK:][::-1],
    }
    for name in _GALLERIES:
        if name in metrics:
            sign = 1 if METRICS[name].better == "more" else -1
            goodness = sign * metric_column(records, method, name)
            order = [int(row) for row in np.argsort(-goodness, kind="stable") if np.isfinite(goodness[row])]
            if order and goodness[order[0]] > goodness[order[-1]]:
                chosen[f"worst by {METRICS[name].title}"] = order[-_PER_GALLERY:][::-1]
                chosen[f"best by {METRICS[name].title}"] = order[:_PER_GALLERY]
    if "order_dependence" in metrics:
        changes = metric_column(records, method, "order_dependence")
        most = [int(row) for row in np.argsort(-changes, kind="stable") if changes[row] > 0]
        chosen["most order-dependent"] = most[:_PER_RANK]
    reasons: dict[int, list[str]] = {}
    for why, rows in chosen.items():
        for row in rows:
            reasons.setdefault(row, []).append(why)
    return [("; ".join(why), records[row]) for row, why in reasons.items()]


def build_gallery(
    source: ExampleSource,
    chosen: Sequence[tuple[str, ExampleRecord]],
    methods: Mapping[str, Method],
    metrics: Sequence[str],
) -> list[GalleryEntry]:
    """Chosen examples with the pictures of all methods, which are composited again."""
    entries = []
    for why, record in chosen:
        example = source[record.number]
        pictures = []
        for name, method in methods.items():
            try:
                url = _data_url(method.composite(example, 0))
                pictures.append(GalleryPicture(name, url, _caption(record, name, metrics)))
            except BadSample as error:
                pictures.append(GalleryPicture(name, None, error.reason))
        references = [on_white(image) if image.shape[2] == 4 else image for image in example.references]
        entries.append(
            GalleryEntry(
                why, example.key, record.stratum, _data_url(_draw_regions(example)),
                [_data_url(image) for image in references], _data_url(example.truth), pictures,
            )
        )  # fmt: skip
    return entries


def _draw_regions(example: Example) -> RGB:
    """The background with the regions framed; the truth where there are no regions."""
    canvas: RGB = (example.background if example.regions else example.truth).copy()
    for k, region in enumerate(example.given_regions or example.regions):
        draw_box(canvas, region, (1.0, 1.0), object_colour(k), 1)
    return canvas


def _data_url(rgb: RGB) -> str:
    """A picture as a data URL, JPEG of a bounded size."""
    scale = _THUMBNAIL / max(rgb.shape[:2])
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(rgb, _QUALITY)).decode()}"


def _caption(record: ExampleRecord, method: str, metrics: Sequence[str]) -> str:
    parts = []
    for name, text in ((_RANKED_BY, "{:.1f} dB"), ("order", "order {}"), ("seam", "seam {:.1f}")):
        value = float(metric_column([record], method, name)[0])
        if name in metrics and np.isfinite(value):
            parts.append(text.format(("wrong", "right")[value >= 0.5] if name == "order" else value))
    return ", ".join(parts)
