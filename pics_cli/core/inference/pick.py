"""The best of a sample's candidates: what they are judged by, and the files that say which it is.

K: objects, h, w: sides of the part of the background around the regions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pics_cli.core.conditioning.alphas import pasted_alphas
from pics_cli.core.conditioning.network_inputs import layer_painters
from pics_cli.core.conditioning.placement import choose_window, fit_paste_boxes, from_window, grow_regions, to_window
from pics_cli.core.images.cutouts import cut_out, is_blank
from pics_cli.core.images.geometry import clip_box, enclosing_box, order_by_lower_edge
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask
from pics_cli.core.images.output_formats import SUFFIXES
from pics_cli.core.images.stored_image import decode_stored, to_srgb
from pics_cli.core.inference.paste import kept_weight, less_kept
from pics_cli.core.inference.record import read_record
from pics_cli.core.inference.sample import Bytes, CompositeOptions, CompositeSample
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.runtime.files import AtomicFile, load_json, make_folder, read_file, write_json
from pics_cli.core.runtime.storage import remove_files

BEST = "best"
# Pixels around the regions that are looked at, too: steps across their borders.
_MARGIN = 4


class PastedScene(NamedTuple):
    """What is known of a composite without a truth: the background, and where its objects are pasted.

    Attributes:
        background: uint8 [h, w, 3], sRGB.
        inside: bool [h, w], where pixels may change.
        alphas: uint8 [K, h, w], of each object as it is pasted; none of a model that pastes nothing.
        pastes: the background with the objects pasted over it, uint8 [h, w, 3]: back to front, and front to back.
        is_ordered: whether the first is an order that was asked for, not the guess by the boxes' lower edges.
    """

    background: RGB
    inside: Mask
    alphas: Bytes
    pastes: tuple[RGB, RGB]
    is_ordered: bool


class Score(msgspec.Struct):
    """A candidate among those of its sample.

    Attributes:
        candidate: its number.
        rank: 1 for the best.
        mean_rank: mean of its ranks by each metric, which decides.
        metrics: value of each.
        ranks: rank by each; equal values share the mean of theirs.
    """

    candidate: int
    rank: int
    mean_rank: float
    metrics: dict[str, float]
    ranks: dict[str, float]


def reasons(scores: Sequence[Score]) -> str:
    """Why the first of some candidates is the best: its values with their places, and those that all have alike."""
    best, *others = scores
    places, alike = [], []
    for metric, rank in best.ranks.items():
        ahead = sum(other.ranks[metric] < rank for other in others)
        text = f"{metric.replace('_', '-')} {best.metrics[metric]:g}"
        if all(other.ranks[metric] == rank for other in others):
            alike.append(text)
        else:
            places.append(f"{text} ({'best' if not ahead else f'place {ahead + 1}'})")
    return "; ".join([*filter(None, [", ".join(places)]), *([f"all alike: {', '.join(alike)}"] if alike else [])])


Judge = Callable[[PastedScene, Iterable[RGB], Sequence[float | None]], list[Score]]


class _Pick(msgspec.Struct):
    id: str
    candidates: list[Score]


def paste_scene(
    sample: CompositeSample, options: CompositeOptions, config: ModelConfig
) -> tuple[PastedScene, tuple[slice, slice]]:
    """A sample with its objects pasted as `composite` pastes them, and which part of the background it is.

    Args:
        sample: with its references cut out.
        options: resolved.
        config: of the model.
    """
    height, width = sample.background.shape[:2]
    window = choose_window(sample.boxes, width, height, options.crop, config.window_size)
    boxes, size = to_window(sample.boxes, window), (window[2] - window[0], window[3] - window[1])
    wider = from_window(grow_regions(boxes, options.shadow_room, *size), window)
    x0, y0, x1, y1 = enclosing_box(wider)
    part = clip_box((x0 - _MARGIN, y0 - _MARGIN, x1 + _MARGIN, y1 + _MARGIN), width, height)
    rows, columns = slice(part[1], part[3]), slice(part[0], part[2])
    background = np.ascontiguousarray(sample.background[rows, columns])
    inside = np.zeros(background.shape[:2], np.bool_)
    for left, top, right, bottom in to_window(wider, part):
        inside[top:bottom, left:right] = True
    if config.hint == "background":
        scene = PastedScene(background, inside, np.zeros((0, *inside.shape), np.uint8), (background,) * 2, False)
        return scene, (rows, columns)
    paste_boxes = to_window(
        from_window(fit_paste_boxes(boxes, sample.references, config.fill, *size, options.fit), window), part
    )
    regions = to_window(sample.boxes, part)
    cutouts = [None if is_blank(reference) else cut_out(reference) for reference in sample.references]
    alphas = np.stack(
        [*pasted_alphas(part[2] - part[0], part[3] - part[1], paste_boxes, cutouts, options.fit, regions)]
    )
    order = list(sample.order) if isinstance(sample.order, tuple) else order_by_lower_edge(regions)
    pastes = []
    for direction in (order, order[::-1]):
        (paint,) = layer_painters(
            background, regions, sample.references, hint="overlay", order=direction, paste_boxes=paste_boxes,
            fit=options.fit,
        )  # fmt: skip
        pastes.append(background.copy())
        paint(pastes[-1])
    if sample.keep is not None:
        inside &= kept_weight(sample.keep, part) == 0
        alphas = less_kept(alphas, sample.keep, part)
    return PastedScene(background, inside, alphas, (pastes[0], pastes[1]), sample.order is not None), (rows, columns)


def write_pick(
    output: Path,
    paths: list[Path],
    judge: Judge,
    sample: CompositeSample,
    options: CompositeOptions,
    config: ModelConfig,
) -> None:
    """Rank a sample's candidates as their files have them, and write which is the best, with a copy of it.

    Args:
        output: folder of the results.
        paths: of all candidates' pictures, by number.
        judge: ranks them.
        sample, options, config: as `paste_scene` takes them.
    """
    scene, part = paste_scene(sample, options, config)
    pictures = (np.ascontiguousarray(to_srgb(decode_stored(read_file(path)))[part]) for path in paths)
    scores = judge(scene, pictures, _lamp_angles([read_record(path, whole=False) or {} for path in paths]))
    best = next(score.candidate for score in scores if score.rank == 1)
    remove_pick(output, sample.name)
    path = pick_path(output, sample.name)
    make_folder(path.parent)
    with AtomicFile(path.with_suffix(paths[best].suffix)) as file:
        file.write(read_file(paths[best]))
    write_json(path, msgspec.to_builtins(_Pick(sample.name, scores)))


def _lamp_angles(records: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Degrees around the scene between each candidate's lamp and the first one's, which is asked for, or found in the
    picture; None where there is none."""
    first, *_ = lights = [record.get("light") or {"strength": 0} for record in records]
    if not first["strength"]:
        return [None] * len(lights)
    return [abs((light["azimuth"] - first["azimuth"] + 180) % 360 - 180) for light in lights]


def pick_path(output: Path, sample: str) -> Path:
    """Path of the file that says which of a sample's candidates is best; a copy of that lies beside it."""
    return output / BEST / f"composed_{sample}.json"


def remove_pick(output: Path, sample: str) -> None:
    """Forget which candidate was best, for one of them is another now."""
    path = pick_path(output, sample)
    remove_files([path.with_suffix(suffix) for suffix in (path.suffix, *SUFFIXES.values())])


def read_pick(path: Path) -> tuple[str, list[Score]] | None:
    """A sample's id and its candidates' scores; None where there is no such file, or it is damaged."""
    try:
        pick = msgspec.convert(load_json(read_file(path)), _Pick)
    except (OSError, ValueError):
        return None
    return pick.id, pick.candidates


def read_ranks(output: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """What the picks of an output folder add to the records of candidates, by sample and number."""
    ranks = dict[tuple[str, int], dict[str, Any]]()
    for sample, scores in filter(None, map(read_pick, (output / BEST).glob("composed_*.json"))):
        for score in scores:
            ranks[sample, score.candidate] = msgspec.to_builtins(score)
    return ranks
