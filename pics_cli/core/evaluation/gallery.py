"""Cases that the report shows: which ones, and their pictures, made once more."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pics_cli.core.data.drawing import colour_of, on_white, rectangle
from pics_cli.core.data.pictures import RGB, encode_jpeg
from pics_cli.core.evaluation.case import Bytes, Case
from pics_cli.core.evaluation.makers import Maker
from pics_cli.core.evaluation.results import Record, column
from pics_cli.core.evaluation.sources import Cases
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
        rectangle(shown, region, (1.0, 1.0), colour_of(k), 1)
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
