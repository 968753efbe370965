"""`report.html`: one self-contained file with tables, plots and a gallery of pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pics_cli.core.evaluation.examples import Example
from pics_cli.core.evaluation.methods import Method
from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.published import published_table
from pics_cli.core.evaluation.records import ExampleRecord, metric_column
from pics_cli.core.evaluation.results import format_cell, format_heading, known_metrics
from pics_cli.core.evaluation.source_base import ExampleSource
from pics_cli.core.evaluation.strata import split_records
from pics_cli.core.evaluation.subsets import ALL
from pics_cli.core.images.image_io import RGB, encode_jpeg
from pics_cli.core.images.sheets import draw_box, object_colour, on_white
from pics_cli.core.runtime.files import AtomicFile
from pics_cli.errors import BadSample

REPORT = "report.html"
# Of the gallery: how many examples it shows of the best, the median and the worst, and the metric that ranks them.
_PER_RANK, _RANKED_BY = 3, "psnr_region"
# Metrics whose distributions are plotted, where they were computed.
_PLOTTED = ("psnr_region", "ssim_region", "seam", "shadow", "sharpness", "ceiling")
_INK, _GOOD, _BAD, _UNCLEAR = "#333333", "#3a9d5d", "#c2385a", "#999999"
_COLOURS = ("#2a6fdb", "#8a5cd6", "#d9822b", "#3a9d5d", "#c2385a", "#4b9bb0", "#8d6e4a", "#777777")


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
    """Examples for the gallery, and why: a method's best, median and worst ones, and the most order-dependent ones."""
    known = (name for name in metrics if not np.isnan(metric_column(records, method, name)).all())
    values = metric_column(records, method, _RANKED_BY if _RANKED_BY in metrics else next(known, _RANKED_BY))
    ranked = [int(row) for row in np.argsort(-values, kind="stable") if np.isfinite(values[row])]
    middle = max((len(ranked) - _PER_RANK) // 2, 0)
    chosen = {
        "best": ranked[:_PER_RANK],
        "median": ranked[middle : middle + _PER_RANK],
        "worst": ranked[-_PER_RANK:][::-1],
    }
    if "order_dependence" in metrics:
        changes = metric_column(records, method, "order_dependence")
        most = [int(row) for row in np.argsort(-changes, kind="stable") if changes[row] > 0]
        chosen["most order-dependent"] = most[:_PER_RANK]
    reasons: dict[int, str] = {}
    for why, rows in chosen.items():
        for row in rows:
            reasons.setdefault(row, why)
    return [(why, records[row]) for row, why in reasons.items()]


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
    for k, region in enumerate(example.regions):
        draw_box(canvas, region, (1.0, 1.0), object_colour(k), 1)
    return canvas


def _data_url(rgb: RGB) -> str:
    """A picture as a data URL, JPEG."""
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(rgb)).decode()}"


def _caption(record: ExampleRecord, method: str, metrics: Sequence[str]) -> str:
    parts = []
    for name, text in ((_RANKED_BY, "{:.1f} dB"), ("order", "order {}"), ("seam", "seam {:.1f}")):
        value = float(metric_column([record], method, name)[0])
        if name in metrics and np.isfinite(value):
            parts.append(text.format(("wrong", "right")[value >= 0.5] if name == "order" else value))
    return ", ".join(parts)


def plot_distribution(results: Mapping[str, Any], records: Sequence[ExampleRecord], metric: str) -> str:
    """Box plots of a metric by subset and method (median, quartiles, 5 and 95 %), SVG."""
    subsets = split_records(records)
    methods = results["methods"]
    figure = Figure(figsize=(1.6 + 1.25 * len(subsets), 2.8))
    axes = figure.add_subplot()
    width = 0.8 / len(methods)
    for m, method in enumerate(methods):
        columns = [metric_column(members, method, metric) for members in subsets.values()]
        known = [values[np.isfinite(values)] for values in columns]
        boxes = {s + (m - (len(methods) - 1) / 2) * width: values for s, values in enumerate(known) if len(values)}
        if not boxes:
            continue
        colour = _COLOURS[m % len(_COLOURS)]
        axes.boxplot(
            list(boxes.values()), positions=list(boxes), widths=0.8 * width, whis=(5, 95),
            showfliers=False, patch_artist=True, boxprops={"facecolor": colour, "edgecolor": colour, "alpha": 0.75},
            medianprops={"color": "white"}, whiskerprops={"color": colour}, capprops={"color": colour},
            label=_legend_label(method),
        )  # fmt: skip
    axes.set_xticks(range(len(subsets)), [name.replace(", ", ",\n", 1) for name in subsets], fontsize=7)
    axes.set_ylabel(format_heading(metric), fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.legend(fontsize=7, frameon=False, ncols=len(methods), loc="lower left", bbox_to_anchor=(0, 1))
    return _to_svg(figure, axes)


def plot_differences(results: Mapping[str, Any], metrics: Sequence[str]) -> list[tuple[str, str]]:
    """Forest plots of the first method's differences to each other one, each row scaled by itself: title and SVG."""
    plots = []
    for title, subsets in results["differences"].items():
        if not title.startswith(f"{results['methods'][0]} minus "):
            continue
        rows = {
            name: subsets[ALL][name]
            for name in metrics
            if METRICS[name].better != "neither" and subsets[ALL][name]["mean"] is not None
        }
        figure = Figure(figsize=(6.4, 0.6 + 0.26 * len(rows)))
        axes = figure.add_subplot()
        for row, (name, estimate) in enumerate(rows.items()):
            scale = max(abs(estimate["mean"]), abs(estimate["low"]), abs(estimate["high"]), 1e-9)
            sign = 1 if METRICS[name].better == "more" else -1
            low, mean, high = sorted(sign * estimate[key] / scale for key in ("low", "mean", "high"))
            clear = low > 0 or high < 0
            colour = _UNCLEAR if not clear else _GOOD if mean > 0 else _BAD
            axes.plot([low, high], [-row, -row], color=colour, linewidth=2)
            axes.plot([mean], [-row], "o", color=colour, markersize=4)
            axes.text(1.08, -row, format_cell(estimate, "+"), fontsize=7, va="center", color=_INK)
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.set_yticks([-row for row in range(len(rows))], [format_heading(name) for name in rows], fontsize=7)
        axes.set_xticks([-1, 0, 1], ["worse", "alike", "better"], fontsize=7)
        axes.set_xlim(-1.05, 1.05)
        plots.append((title, _to_svg(figure, axes)))
    return plots


def _legend_label(method: str) -> str:
    """A name as matplotlib draws it: neither a formula nor hidden from the legend."""
    return " " * method.startswith("_") + method.replace("$", r"\$")


def _to_svg(figure: Figure, axes: Any) -> str:
    """The figure as SVG, with fixed ids and without a date: the same values give the same file."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.set_layout_engine("tight")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "pics", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
