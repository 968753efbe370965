"""Pictures of a report: which examples it shows, their pictures as data URLs, and galleries that take fewer bytes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from pics_cli.core.evaluation.examples import Example
from pics_cli.core.evaluation.methods import Method
from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.records import ExampleRecord, metric_column
from pics_cli.core.evaluation.source_base import ExampleSource
from pics_cli.core.images.image_io import RGB, decode_image, encode_jpeg
from pics_cli.core.images.sheets import draw_box, object_colour, on_white
from pics_cli.errors import BadSample

# For each method: how many examples are shown of the best, the median and the worst, and the metric that ranks them.
_PER_RANK, _RANKED_BY = 3, "psnr_region"
# Metrics whose two best and two worst examples are shown, too.
_GALLERIES, _PER_GALLERY = ("ssim_region", "seam", "shadow", "order", "identity", "detail", "lpips_region"), 2
# Examples of all methods together, each of which is composited again.
_MOST = 60
# Longer side of pictures, in pixels, at most, and their JPEG quality; lower ones, for which they are encoded again.
_THUMBNAIL, _QUALITY, _LOWER = 256, 85, (65, 45)
# Shares of the examples that are left, where that is not enough.
_SHARES = (0.75, 0.5, 0.25, 0.0)
_HEAD = "data:image/jpeg;base64,"


class Reason(NamedTuple):
    """Why a method shows an example, such as `best; best by seam`, and where among those that it shows."""

    place: int
    text: str


@dataclass(frozen=True)
class GalleryPicture:
    """A method's picture as a data URL, None where the method has none; and the text below it."""

    name: str
    url: str | None
    text: str


@dataclass(frozen=True)
class GalleryEntry:
    """An example in the gallery: why it was chosen, by method, and its pictures as data URLs."""

    why: dict[str, Reason]
    key: str
    subset: str
    inputs: str
    references: list[str]
    truth: str
    pictures: list[GalleryPicture]


def choose_examples(
    records: Sequence[ExampleRecord], methods: Sequence[str], metrics: Sequence[str]
) -> list[tuple[dict[str, Reason], ExampleRecord]]:
    """Examples for the gallery and why, by method: best, median and worst ones, and those of some metrics.

    At most 60, in the order of importance: the first of each reason before the second, of all methods alike.
    """
    groups = {method: _reasons(records, method, metrics) for method in methods}
    longest = max(len(rows) for reasons in groups.values() for rows in reasons.values())
    names = list(dict.fromkeys(why for reasons in groups.values() for why in reasons))
    picks = [
        (reasons[why][depth], method, Reason(_PER_RANK * names.index(why) + depth, why))
        for depth in range(longest)
        for why in names
        for method, reasons in groups.items()
        if depth < len(reasons.get(why, ()))
    ]
    chosen: dict[int, dict[str, list[Reason]]] = {}
    for row, method, reason in picks:
        if row not in chosen and len(chosen) == _MOST:
            break
        chosen.setdefault(row, {}).setdefault(method, []).append(reason)
    return [
        ({method: _joined(sorted(reasons)) for method, reasons in why.items()}, records[row])
        for row, why in chosen.items()
    ]


def _joined(reasons: Sequence[Reason]) -> Reason:
    return Reason(reasons[0].place, "; ".join(reason.text for reason in reasons))


def _reasons(records: Sequence[ExampleRecord], method: str, metrics: Sequence[str]) -> dict[str, list[int]]:
    """Rows of the examples that a method shows, by reason; of each the most telling one first."""
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
    return chosen


def build_gallery(
    source: ExampleSource,
    chosen: Sequence[tuple[dict[str, Reason], ExampleRecord]],
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
    return _encode(rgb, _QUALITY)


def _encode(rgb: RGB, quality: int) -> str:
    return _HEAD + base64.b64encode(encode_jpeg(rgb, quality)).decode()


def _caption(record: ExampleRecord, method: str, metrics: Sequence[str]) -> str:
    parts = []
    for name, text in ((_RANKED_BY, "{:.1f} dB"), ("order", "order {}"), ("seam", "seam {:.1f}")):
        value = float(metric_column([record], method, name)[0])
        if name in metrics and np.isfinite(value):
            parts.append(text.format(("wrong", "right")[value >= 0.5] if name == "order" else value))
    return ", ".join(parts)


def smaller_galleries(gallery: Sequence[GalleryEntry]) -> Iterator[tuple[list[GalleryEntry], str]]:
    """Galleries that take fewer and fewer bytes, and what was done: itself, at lower JPEG qualities, of fewer examples,
    of none."""
    yield [*gallery], ""
    coarse = [*gallery]
    for quality in _LOWER:
        coarse = [_encoded_again(entry, quality) for entry in gallery]
        yield coarse, f"JPEG quality {quality}"
    for share in _SHARES:
        kept = coarse[: int(share * len(coarse))]
        yield kept, f"JPEG quality {_LOWER[-1]}, {len(kept)} of {len(gallery)} chosen cases"


def _encoded_again(entry: GalleryEntry, quality: int) -> GalleryEntry:
    def again(url: str) -> str:
        return _encode(decode_image(base64.b64decode(url.removeprefix(_HEAD))).rgb, quality)

    pictures = [replace(picture, url=picture.url and again(picture.url)) for picture in entry.pictures]
    references = [again(url) for url in entry.references]
    return replace(
        entry, inputs=again(entry.inputs), references=references, truth=again(entry.truth), pictures=pictures
    )
