"""Every figure of a composite, by name. Formulas: docs/metrics.md; those of pixels: pixel_metrics.py.

K: objects, d: width of a descriptor, U: union of the regions, V_i: what is seen of object i in truth.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.evaluation import pixel_metrics
from pics_cli.core.evaluation.descriptor import describe
from pics_cli.core.evaluation.examples import Case, reference_descriptors
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask
from pics_cli.core.runtime.rng import generator
from pics_cli.errors import PicsError

Floats = npt.NDArray[np.float32]

# References that an object is sought among.
CHOICES = 16
# An object is missing where less than this share of what it changes in truth is changed.
_CHANGED = 0.25
# Pixels by which that is judged differ from the background by so much in truth, in 8-bit steps; and how many it takes.
_SHOWS, _SOME = 12.0, 16


class Measure(NamedTuple):
    """A figure: its heading, its unit, what of two values is better, and what it says."""

    title: str
    unit: str
    better: Literal["more", "less", "neither"]
    what: str


MEASURES: dict[str, Measure] = {
    "psnr": Measure("PSNR", "dB", "more", "of the whole picture to the truth"),
    "psnr_region": Measure("PSNR in regions", "dB", "more", "in the union of the regions"),
    "psnr_overlap": Measure("PSNR in overlap", "dB", "more", "where regions overlap"),
    "ssim": Measure("SSIM", "", "more", "of the whole picture (Wang et al. 2004)"),
    "ssim_region": Measure("SSIM in regions", "", "more", "its map's mean in the union of the regions"),
    "ssim_overlap": Measure("SSIM in overlap", "", "more", "its map's mean where regions overlap"),
    "seam": Measure("seam", "grey levels", "less", "steps across borders of regions and objects that the truth lacks"),
    "seam_box": Measure("seam at regions", "grey levels", "less", "of those, along the borders of the regions"),
    "seam_object": Measure("seam at objects", "grey levels", "less", "of those, along the objects' outlines"),
    "shadow": Measure("shadow", "grey levels", "less", "luminance error on ground that is in shadow in truth"),
    "lit": Measure("lit ground", "grey levels", "less", "luminance error on ground that is not"),
    "order": Measure("order", "share", "more", "overlaps with the right object in front"),
    "identity": Measure("identity", "share", "more", f"objects nearest to their own reference among {CHOICES}"),
    "assignment": Measure("assignment", "share", "more", "objects nearest to their own reference of the sample's"),
    "leak": Measure("leak", "", "less", "similarity of a region to the other references above the truth's"),
    "ceiling": Measure("copy-paste", "", "less", "similarity to the own reference above what the truth reaches"),
    "missing": Measure("missing", "share", "less", "objects of which less than a quarter is there"),
    "untouched": Measure("changed outside", "pixels", "less", "that differ from the background outside the regions"),
    "sharpness": Measure("sharpness", "", "neither", "gradient energy in the regions over the truth's"),
    "order_dependence": Measure("order dependence", "grey levels", "less", "change when objects change their places in "
                                "the list"),
}  # fmt: skip
MEASURES |= {
    "lpips": Measure("LPIPS", "", "less", "of the whole picture by AlexNet (Zhang et al. 2018; --features)"),
    "lpips_region": Measure("LPIPS in regions", "", "less", "its map's mean in the union of the regions"),
    "lpips_overlap": Measure("LPIPS in overlap", "", "less", "its map's mean where regions overlap"),
    "dino_i": Measure("DINO-I", "", "more", "similarity of objects to their references by DINOv2 (--features)"),
    "clip_i": Measure("CLIP-I", "", "more", "similarity of objects to their references by CLIP (--features)"),
}
# By the kind of encoder that they need.
LEARNT = {"dino_i": "dino", "clip_i": "clip"} | dict.fromkeys(("lpips", "lpips_region", "lpips_overlap"), "lpips")
# What `judge` cannot say of one picture by itself; `run` does.
OF_TWO = ("order_dependence", *LEARNT)


class Sight(NamedTuple):
    """What is needed to tell objects apart by sight.

    Attributes:
        others: descriptors of references of other cases, float32 [n, d].
        owners: key of the case that each is of.
        seed: of the draw among them.
    """

    others: Floats
    owners: npt.NDArray[np.str_]
    seed: int


class Judged(NamedTuple):
    """Figures by name, nan where the case has nothing to judge by; and similarities of region i to reference j."""

    values: dict[str, float]
    similarity: Floats


def sight_of(cases: Sequence[Case], seed: int) -> Sight:
    """The references of some cases, to be drawn from."""
    if not cases:
        return Sight(np.zeros((0, 1), np.float32), np.zeros(0, np.str_), seed)
    found = [reference_descriptors(case.references) for case in cases]
    owners = [case.key for case in cases for _ in case.references]
    return Sight(np.concatenate(found), np.array(owners), seed)


def check_names(names: Sequence[str]) -> None:
    """Raise PicsError for a name that is no figure's, with the nearest that is."""
    for name in names:
        if name not in MEASURES:
            near = get_close_matches(name, MEASURES, n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise PicsError(f"--metrics: got {name}, which is no figure", f"{guess}known: {', '.join(MEASURES)}")


class Known(NamedTuple):
    """What of a case is the same for all of its composites.

    Attributes:
        references: descriptors, float32 [K, d].
        ceiling: similarities of the truth's regions to them, float32 [K, K].
    """

    references: Floats
    ceiling: Floats


def known_of(case: Case) -> Known | None:
    """Of a case; None where its objects are not known."""
    if not case.references:
        return None
    references = reference_descriptors(case.references)
    return Known(references, seen(case.truth, case) @ references.T)


def judge(result: RGB, case: Case, sight: Sight, names: Collection[str], known: Known | None = None) -> Judged:
    """Figures of a composite.

    Args:
        result: uint8 [H, W, 3].
        case: its truth.
        sight: for those that tell objects apart.
        names: of the figures that are wanted, of `MEASURES`.
        known: of the case, where it is at hand.

    Raises:
        PicsError: the picture has another size than the truth; a figure that is no number.
    """
    if result.shape != case.truth.shape:
        shown = "x".join(str(side) for side in result.shape[1::-1])
        expected = "x".join(str(side) for side in case.truth.shape[1::-1])
        raise PicsError(f"{case.key}: the picture is {shown}, the truth {expected}", "results keep the truth's size")
    wanted = [name for name in MEASURES if name in names and name not in OF_TWO]
    known = known or known_of(case)
    if known is None:
        whole = {name: number_of(case.key, name, _whole(result, case, name)) for name in wanted}
        return Judged(whole, np.zeros((0, 0), np.float32))
    inside, overlap = covers(case)
    own, (references, ceiling) = seen(result, case), known
    similarity = own @ references.T
    found: dict[str, float | None] = {}
    found |= _of_pixels(result, case, inside, overlap, names)
    found |= {
        "identity": _identity(own, references, case, sight),
        "assignment": _mean(similarity.argmax(1) == np.arange(len(own))) if len(own) > 1 else None,
        "leak": _off_diagonal(similarity - ceiling),
        "ceiling": _mean(np.maximum(np.diag(similarity - ceiling), 0)),
        "missing": missing(result, case),
    }
    return Judged({name: number_of(case.key, name, found[name]) for name in wanted}, similarity)


def _whole(result: RGB, case: Case, name: str) -> float | None:
    """A figure of a picture of which nothing but the truth is known."""
    if name == "psnr":
        return pixel_metrics.region_psnr(result, case.truth, np.ones(case.truth.shape[:2], np.bool_))
    found = pixel_metrics.ssim(result, case.truth) if name == "ssim" else None
    return None if found is None else found[0]


def _of_pixels(result: RGB, case: Case, inside: Mask, overlap: Mask, names: Collection[str]) -> dict[str, float | None]:
    truth = case.truth
    box, outline = pixel_metrics.seam(result, truth, inside), pixel_metrics.object_seam(result, truth, case.visible)
    full = case.full if case.clean else None
    pair = case.full if case.full is not None and len(case.full) == 2 else None
    similar = pixel_metrics.ssim(result, truth) if {"ssim", "ssim_region", "ssim_overlap"} & set(names) else None
    ssim, parts = similar or (None, None)
    return {
        "psnr": pixel_metrics.region_psnr(result, truth, np.ones_like(inside)),
        "psnr_region": pixel_metrics.region_psnr(result, truth, inside),
        "psnr_overlap": pixel_metrics.region_psnr(result, truth, overlap) if overlap.any() else None,
        "ssim": ssim,
        "ssim_region": None if parts is None else float(parts[inside].mean()),
        "ssim_overlap": None if parts is None or not overlap.any() else float(parts[overlap].mean()),
        "seam": pixel_metrics.pooled([box, outline]).mean,
        "seam_box": box.mean,
        "seam_object": outline.mean,
        "shadow": None if full is None else pixel_metrics.shadow_error(result, truth, case.background, full, inside),
        "lit": None if full is None else pixel_metrics.lit_error(result, truth, case.background, full, inside),
        "order": None if pair is None else pixel_metrics.right_order(result, truth, case.wrong, pair[0] & pair[1]),
        "untouched": float(np.count_nonzero((result != case.background).any(axis=2) & ~inside)),
        "sharpness": pixel_metrics.sharpness(result, truth, inside),
    }


def seen(picture: RGB, case: Case) -> Floats:
    """Descriptors of what a picture shows where each object is seen in truth, float32 [K, d]; 0 of one that is not."""
    found = [
        describe(picture, mask, place) if mask.any() else None
        for mask, place in zip(case.visible, case.places, strict=True)
    ]
    width = next((len(each) for each in found if each is not None), 1)
    return np.stack([np.zeros(width, np.float32) if each is None else each for each in found])


def _identity(own: Floats, references: Floats, case: Case, sight: Sight) -> float | None:
    """Share of the objects that look most like their own reference among 16: the others of the sample, and drawn ones.

    None where no object is seen, or where there are too few others to draw from.
    """
    others = sight.others[sight.owners != case.key]
    count = CHOICES - len(references)
    if len(others) < count:
        return None
    found = []
    for k, mask in enumerate(case.visible):
        if mask.any():
            chosen = others[generator(sight.seed, "identity", case.key, k).choice(len(others), count, replace=False)]
            rivals = np.concatenate([np.delete(references, k, axis=0), chosen])
            found.append(bool(references[k] @ own[k] > (rivals @ own[k]).max()))
    return _mean(found)


def missing(result: RGB, case: Case) -> float | None:
    """Share of the objects that are not there.

    Of object i with P_i = {p in V_i: mean over channels of |T - C| >= 12}, the sum over P_i of |X - C| is less than a
    quarter of that of |T - C|; C is the background. Objects with fewer than 16 such pixels do not count.
    """
    background = case.background.astype(np.float32)
    shown = np.abs(case.truth - background).mean(axis=2)
    changed = np.abs(result - background).mean(axis=2)
    found = []
    for mask in case.visible:
        at = mask & (shown >= _SHOWS)
        if np.count_nonzero(at) >= _SOME:
            found.append(bool(changed[at].sum() < _CHANGED * shown[at].sum()))
    return _mean(found)


def between(one: RGB, other: RGB, case: Case) -> float:
    """Mean absolute difference of two composites in the union of the regions, in 8-bit steps."""
    inside, _ = covers(case)
    return float(np.abs(one[inside].astype(np.float32) - other[inside]).mean())


def covers(case: Case) -> tuple[Mask, Mask]:
    """U, and where at least two regions overlap."""
    count = np.zeros(case.truth.shape[:2], np.int32)
    for x0, y0, x1, y1 in case.regions:
        count[y0:y1, x0:x1] += 1
    return count > 0, count > 1


def _off_diagonal(values: Floats) -> float | None:
    apart = values[~np.eye(len(values), dtype=np.bool_)]
    return _mean(apart) if apart.size else None


def _mean(values: Sequence[bool] | npt.NDArray[np.bool_ | np.floating[Any]]) -> float | None:
    return float(np.asarray(values, np.float64).mean()) if len(values) else None


def number_of(key: str, name: str, value: float | None) -> float:
    """nan where there is none; one that is no number is an error."""
    if value is None:
        return float("nan")
    if not np.isfinite(value):
        raise PicsError(f"{key}: {name} is {value}", "please report it with the sample")
    return float(value)
