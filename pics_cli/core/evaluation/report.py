"""`report.html`: one file with tables, plots and pictures, that needs nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pics_cli.core.evaluation.example_sets import Cases
from pics_cli.core.evaluation.examples import Bytes, Case
from pics_cli.core.evaluation.methods import Maker
from pics_cli.core.evaluation.metrics import MEASURES
from pics_cli.core.evaluation.results import Record, cell, column, heading
from pics_cli.core.evaluation.subsets import ALL
from pics_cli.core.images.image_io import RGB, encode_jpeg
from pics_cli.core.images.sheets import draw_box, object_colour, on_white
from pics_cli.core.runtime.files import AtomicFile
from pics_cli.errors import BadSample

EACH = 3
BY = "psnr_region"


def choose(records: Sequence[Record], method: str, names: Sequence[str]) -> list[tuple[str, Record]]:
    """Cases to look at, and why: those that a method is best, middling and worst at, and most order-dependent ones."""
    figure = (
        BY if BY in names else next((name for name in names if not np.isnan(column(records, method, name)).all()), BY)
    )
    values = column(records, method, figure)
    known = [int(at) for at in np.argsort(-values, kind="stable") if np.isfinite(values[at])]
    middle = max((len(known) - EACH) // 2, 0)
    picked = {"best": known[:EACH], "median": known[middle : middle + EACH], "worst": known[-EACH:][::-1]}
    if "order_dependence" in names:
        swing = column(records, method, "order_dependence")
        swings = [int(at) for at in np.argsort(-swing, kind="stable") if swing[at] > 0]
        picked["most order-dependent"] = swings[:EACH]
    found, seen = list[tuple[str, Record]](), set[int]()
    for why, places in picked.items():
        for at in places:
            if at not in seen:
                seen.add(at)
                found.append((why, records[at]))
    return found


def show(
    cases: Cases, chosen: Sequence[tuple[str, Record]], methods: Mapping[str, Maker], names: Sequence[str]
) -> list[dict[str, Any]]:
    """What the report's template needs of each chosen case: words, and pictures as data URLs."""
    found = []
    for why, record in chosen:
        case = cases.case(record["number"])
        pictures = list[dict[str, str | None]]()
        for name, method in methods.items():
            try:
                pictures.append({"name": name, "url": url(method.make(case, 0)), "text": words(record, name, names)})
            except BadSample as error:
                pictures.append({"name": name, "url": None, "text": error.reason})
        found.append(
            {
                "why": why, "key": case.key, "stratum": record["stratum"], "inputs": url(framed(case)),
                "references": [url(_plain(each)) for each in case.references], "truth": url(case.truth),
                "pictures": pictures,
            }
        )  # fmt: skip
    return found


def framed(case: Case) -> RGB:
    """The background with the regions' frames."""
    shown: RGB = case.background.copy() if case.regions else case.truth.copy()
    for k, region in enumerate(case.regions):
        draw_box(shown, region, (1.0, 1.0), object_colour(k), 1)
    return shown


def url(rgb: RGB) -> str:
    """A picture as a data URL, JPEG."""
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(rgb)).decode()}"


def words(record: Record, method: str, names: Sequence[str]) -> str:
    """What is written below a picture."""
    parts = []
    for name, text in ((BY, "{:.1f} dB"), ("order", "order {}"), ("seam", "seam {:.1f}")):
        values = [v for v in record["values"].get(method, {}).get(name, ()) if v is not None]
        if name in names and values:
            value = float(np.mean(values))
            parts.append(text.format(("wrong", "right")[value >= 0.5] if name == "order" else value))
    return ", ".join(parts)


def _plain(reference: Bytes) -> RGB:
    plain: RGB = on_white(reference) if reference.shape[2] == 4 else reference
    return plain


REPORT = "report.html"
# Figures whose distributions are drawn, those of them that there are.
_DRAWN = ("psnr_region", "ssim_region", "seam", "shadow", "sharpness", "ceiling")
_INK, _COLOURS = "#333333", ("#2a6fdb", "#8a5cd6", "#d9822b", "#3a9d5d", "#c2385a", "#4b9bb0", "#8d6e4a", "#777777")


def write_report(
    folder: Path, results: Mapping[str, Any], records: Sequence[Record], gallery: Sequence[Mapping[str, Any]]
) -> None:
    """Write the report.

    Args:
        folder: where.
        results: as `results.json` has them.
        records: of the cases that were measured.
        gallery: cases to show, as `gallery.show` gives them.
    """
    figures = results["figures"]
    names = [name for name in MEASURES if any(found.get(name, {}).get("cases") for found in figures[ALL].values())]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    text = environment.get_template("report.html.j2").render(
        results=results,
        names=names,
        headings={name: heading(name) for name in names},
        whats={name: MEASURES[name].what for name in names},
        cell=cell,
        value=lambda one: "" if one["mean"] is None else one["mean"],
        distributions=[(name, distribution(results, records, name)) for name in _DRAWN if name in names],
        forest=forest(results, names),
        matrices={name: matrix(values) for name, values in results["similarity"].items() if values},
        gallery=gallery,
    )
    with AtomicFile(folder / REPORT) as file:
        file.write(text.encode())


def distribution(results: Mapping[str, Any], records: Sequence[Record], name: str) -> str:
    """A figure's values by group and method as boxes (median, quartiles, 5 and 95 %), SVG."""
    groups = {group: [r for r in records if group in (ALL, r["stratum"])] for group in results["strata"]}
    methods = results["methods"]
    figure = Figure(figsize=(1.6 + 1.25 * len(groups), 2.8))
    axes = figure.add_subplot()
    wide = 0.8 / len(methods)
    for m, method in enumerate(methods):
        values = [column(some, method, name) for some in groups.values()]
        known = [each[np.isfinite(each)] for each in values]
        places = [g + (m - (len(methods) - 1) / 2) * wide for g in range(len(groups))]
        drawn = [(place, each) for place, each in zip(places, known, strict=True) if len(each)]
        if not drawn:
            continue
        colour = _COLOURS[m % len(_COLOURS)]
        axes.boxplot(
            [each for _, each in drawn], positions=[place for place, _ in drawn], widths=0.8 * wide, whis=(5, 95),
            showfliers=False, patch_artist=True, boxprops={"facecolor": colour, "edgecolor": colour, "alpha": 0.75},
            medianprops={"color": "white"}, whiskerprops={"color": colour}, capprops={"color": colour},
            label=_words(method),
        )  # fmt: skip
    axes.set_xticks(range(len(groups)), [_broken(group) for group in groups], fontsize=7)
    axes.set_ylabel(heading(name), fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.legend(fontsize=7, frameon=False, ncols=len(methods), loc="lower left", bbox_to_anchor=(0, 1))
    return _svg(figure, axes)


def forest(results: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, str]]:
    """Differences of the first method to each other one with their intervals, in deviations of the figure, SVG."""
    found = []
    for title, groups in results["differences"].items():
        if not title.startswith(f"{results['methods'][0]} minus "):
            continue
        shown = [
            name for name in names if MEASURES[name].better != "neither" and (groups[ALL][name]["mean"] is not None)
        ]
        figure = Figure(figsize=(6.4, 0.6 + 0.26 * len(shown)))
        axes = figure.add_subplot()
        for at, name in enumerate(shown):
            one = groups[ALL][name]
            scale = max(abs(one["mean"]), abs(one["low"]), abs(one["high"]), 1e-9)
            sign = 1 if MEASURES[name].better == "more" else -1
            low, mean, high = sorted(sign * one[key] / scale for key in ("low", "mean", "high"))
            clear = low > 0 or high < 0
            colour = "#999999" if not clear else "#3a9d5d" if mean > 0 else "#c2385a"
            axes.plot([low, high], [-at, -at], color=colour, linewidth=2)
            axes.plot([mean], [-at], "o", color=colour, markersize=4)
            axes.text(1.08, -at, cell(one, "+"), fontsize=7, va="center", color=_INK)
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.set_yticks([-at for at in range(len(shown))], [heading(name) for name in shown], fontsize=7)
        axes.set_xticks([-1, 0, 1], ["worse", "alike", "better"], fontsize=7)
        axes.set_xlim(-1.05, 1.05)
        found.append((title, _svg(figure, axes)))
    return found


def matrix(values: Sequence[Sequence[float]]) -> list[list[dict[str, Any]]]:
    """Cells of a similarity matrix with the shade that each gets, 0 to 1."""
    return [[{"text": f"{value:.2f}", "shade": round(max(0.0, min(1.0, value)), 3)} for value in row] for row in values]


def _words(name: str) -> str:
    """A name as matplotlib draws it: neither a formula nor hidden from the legend."""
    return " " * name.startswith("_") + name.replace("$", r"\$")


def _broken(group: str) -> str:
    return group.replace(", ", ",\n", 1)


def _svg(figure: Figure, axes: Any) -> str:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.set_layout_engine("tight")
    sink = io.StringIO()
    # Ids and dates are fixed, so that the same figures give the same file.
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "pics", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(sink, metadata={"Date": None})
    text = sink.getvalue()
    return text[text.index("<svg") :]
