"""Plots of a report: SVG whose ink is the page's own colour of text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.records import ExampleRecord, metric_column
from pics_cli.core.evaluation.results import format_cell, format_heading
from pics_cli.core.evaluation.strata import split_records
from pics_cli.core.evaluation.subsets import ALL

# Stands for the page's colour of text, which is bright on a dark page.
_INK = "#010203"
# Dots of a plot over difficulty, at most: each takes a hundred bytes.
_MOST_DOTS = 4000
# Inches, so that the names of methods have room.
_LEAST_WIDTH = 6.4
_GOOD, _BAD, _UNCLEAR = "#3a9d5d", "#c2385a", "#999999"
_COLOURS = ("#2a6fdb", "#8a5cd6", "#d9822b", "#3a9d5d", "#c2385a", "#4b9bb0", "#8d6e4a", "#777777")


def plot_distribution(results: Mapping[str, Any], records: Sequence[ExampleRecord], metric: str) -> str:
    """Box plots of a metric by subset and method (median, quartiles, 5 and 95 %), SVG."""
    subsets = split_records(records)
    methods = results["methods"]
    figure = Figure(figsize=(max(1.6 + 1.25 * len(subsets), _LEAST_WIDTH), 2.8))
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
    _add_legend(figure, axes)
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


def plot_difficulty(results: Mapping[str, Any], records: Sequence[ExampleRecord], metric: str) -> str | None:
    """A metric of each example over its difficulty (OverLayScore), and its mean in ten groups of equal size, SVG.

    Of many examples and methods, only every nth has a dot; means are of all.

    Returns:
        None where no example has both.
    """
    step = -(-len(records) * len(results["methods"]) // _MOST_DOTS)
    difficulty = np.array([np.nan if record.difficulty is None else record.difficulty for record in records])
    figure = Figure(figsize=(6.4, 3.2))
    axes = figure.add_subplot()
    drawn = False
    for number, method in enumerate(results["methods"]):
        values = metric_column(records, method, metric)
        known = np.flatnonzero(np.isfinite(values) & np.isfinite(difficulty))
        if not len(known):
            continue
        drawn = True
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(
            difficulty[known[::step]],
            values[known[::step]],
            "o",
            color=colour,
            markersize=3,
            alpha=0.4,
            markeredgewidth=0,
        )
        groups = np.array_split(known[np.argsort(difficulty[known], kind="stable")], min(10, len(known)))
        means = [(difficulty[group].mean(), values[group].mean()) for group in groups]
        axes.plot(*zip(*means, strict=True), color=colour, linewidth=1.5, label=_legend_label(method))
    if not drawn:
        return None
    axes.set_xlabel("difficulty (IoU of boxes times likeness of objects)", fontsize=8)
    axes.set_ylabel(format_heading(metric), fontsize=8)
    axes.tick_params(labelsize=7)
    _add_legend(figure, axes)
    return _to_svg(figure, axes)


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Names of methods above the plot, in as many lines as its width asks for; the figure grows by them."""
    labels = axes.get_legend_handles_labels()[1]
    width, height = figure.get_size_inches()
    columns = max(1, int((width - 0.8) / (0.5 + 0.065 * max(map(len, labels), default=1))))
    figure.set_size_inches(width, height + 0.16 * ((len(labels) - 1) // columns))
    axes.legend(fontsize=7, frameon=False, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1))


def _legend_label(method: str) -> str:
    """A name as matplotlib draws it: neither a formula nor hidden from the legend."""
    return " " * method.startswith("_") + method.replace("$", r"\$")


def _to_svg(figure: Figure, axes: Any) -> str:
    """The figure as SVG, with fixed ids and without a date: the same values give the same file."""
    for side, spine in axes.spines.items():
        spine.set_visible(side not in ("top", "right"))
        spine.set_edgecolor(_INK)
    axes.tick_params(color=_INK)
    for text in figure.findobj(Text):
        text.set_color(_INK)
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    figure.set_layout_engine("tight")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "pics", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue().replace(_INK, "currentColor")
    return svg[svg.index("<svg") :]
