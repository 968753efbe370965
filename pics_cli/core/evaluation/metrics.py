"""The registry of metrics. A new one is an entry of `METRICS` and, if it needs one, a pure function elsewhere.

Formulas: docs/metrics.md; as code: `pixel_metrics`, `shadow_metrics`, `object_metrics`, `appearance_metrics`,
`networks`. What metrics share of a picture is computed once: `composites`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Literal

import numpy as np

from pics_cli.core.evaluation import appearance_metrics as appearance
from pics_cli.core.evaluation import object_metrics as objects
from pics_cli.core.evaluation import pixel_metrics as pixels
from pics_cli.core.evaluation import shadow_metrics as shadows
from pics_cli.core.evaluation.appearance_metrics import CHOICES
from pics_cli.core.evaluation.composites import Composite
from pics_cli.core.evaluation.descriptor import Floats
from pics_cli.core.images.masks import Mask
from pics_cli.errors import PicsError

# Commonly used weights of each kind.
_USUAL_WEIGHTS = {"dino": "facebook/dinov2-base", "clip": "openai/clip-vit-large-patch14", "lpips": "alexnet"}


def _psnr_of(c: Composite, inside: Mask | None = None) -> float | None:
    return pixels.psnr(c.picture, c.truth, inside)


def _whole(measured: tuple[float, Floats] | None) -> float | None:
    return None if measured is None else measured[0]


def _mean_in(measured: tuple[float, Floats] | None, mask: Mask) -> float | None:
    return float(measured[1][mask].mean()) if measured is not None and mask.any() else None


def _ground_error(c: Composite, where: Mask | None) -> float | None:
    return None if where is None else shadows.ground_error(c.luminance, c.context.truth_luminance, where)


def _balanced_error(c: Composite) -> float | None:
    shadow = c.context.shadow
    return None if shadow is None else shadows.balanced_error(c.shadow, shadow, c.context.ground)


def _contact(c: Composite) -> float | None:
    below = c.context.touched_ground
    return None if below is None else shadows.shadow_contact(c.shadow, below)


def _light(c: Composite) -> float | None:
    outlines, true_angle = c.context.outlines, c.context.shadow_angle
    if true_angle is None or outlines is None:
        return None
    return shadows.light_disagreement(shadows.shadow_angle(c.darker, outlines, c.context.grounds), true_angle)


def _colour_chamfer(c: Composite) -> float | None:
    seen = [objects.object_colours(c.picture, mask) for mask in c.example.visible_masks]
    pairs = zip(seen, c.context.reference_colours, strict=True)
    known = [objects.colour_chamfer(a, b) for a, b in pairs if a is not None and b is not None]
    return float(np.mean(known)) if known else None


def _detail(c: Composite) -> float | None:
    detail, patches = objects.fine_detail(c.luminance), c.context.detailed_patches
    found = [objects.detail_correlation(detail, c.context.truth_detail, corners) for corners in patches]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def _order(c: Composite) -> float | None:
    right_orders = (c.truth, *c.example.pasted_orders)
    verdicts = [
        pixels.is_order_right(c.picture, right_orders, overlap.wrong_orders, overlap.where)
        for overlap in c.example.overlaps
    ]
    known = [verdict for verdict in verdicts if verdict is not None]
    return float(np.mean(known)) if known else None


def _count_changed_outside(c: Composite) -> float:
    return float(np.count_nonzero((c.picture != c.example.background).any(axis=2) & ~c.example.allowed))


def _order_dependence(c: Composite) -> float | None:
    if c.composite_reversed is None or len(c.example.references) < 2:
        return None
    return pixels.mean_difference(c.picture, c.composite_reversed(), c.example.inside)


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        title: heading.
        unit: of its values; `share`: of 1.
        better: which of two values is better.
        description: its meaning, for readers of the report.
        compute: its value of a composite; None where it is undefined for the example.
        needs: kind of the network that it takes; empty: none.
        needs_objects: False: a picture and its truth suffice.
    """

    title: str
    unit: str
    better: Literal["more", "less", "neither"]
    description: str
    compute: Callable[[Composite], float | None]
    needs: Literal["", "lpips", "dino", "clip"] = ""
    needs_objects: bool = True


def _collapse(below: float) -> Metric:
    meaning = f"of objects less like their reference than {below} by DINOv2 (--features)"
    share = partial(_share_below, below)
    return Metric(f"collapse at {below}", "share", "less", meaning, share, needs="dino")


def _share_below(limit: float, c: Composite) -> float:
    return float(np.mean(c.dino < limit))


METRICS: dict[str, Metric] = {
    "psnr": Metric("PSNR", "dB", "more", "of the whole picture to the truth", _psnr_of, needs_objects=False),
    "psnr_region": Metric("PSNR in regions", "dB", "more", "in the union of the regions",
                          lambda c: _psnr_of(c, c.example.inside)),
    "psnr_overlap": Metric("PSNR in overlap", "dB", "more", "where regions overlap",
                           lambda c: _psnr_of(c, c.example.overlap)),
    "psnr_object": Metric("PSNR of objects", "dB", "more", "of what is seen of the objects in the truth",
                          lambda c: _psnr_of(c, c.example.seen)),
    "ssim": Metric("SSIM", "", "more", "of the whole picture (Wang et al. 2004)", lambda c: _whole(c.ssim),
                   needs_objects=False),
    "ssim_region": Metric("SSIM in regions", "", "more", "its map's mean in the union of the regions",
                          lambda c: _mean_in(c.ssim, c.example.inside)),
    "ssim_overlap": Metric("SSIM in overlap", "", "more", "its map's mean where regions overlap",
                           lambda c: _mean_in(c.ssim, c.example.overlap)),
    "seam": Metric("seam", "grey levels", "less", "steps across borders of regions and objects that the truth lacks",
                   lambda c: pixels.pool_seams([c.region_seam, c.object_seam]).mean),
    "seam_box": Metric("seam at regions", "grey levels", "less", "of those, along the borders of the regions",
                       lambda c: c.region_seam.mean),
    "seam_object": Metric("seam at objects", "grey levels", "less", "of those, along the objects' outlines",
                          lambda c: c.object_seam.mean),
    "shadow": Metric("shadow", "grey levels", "less", "luminance error on ground that is in shadow in truth",
                     lambda c: _ground_error(c, c.context.shaded)),
    "lit": Metric("lit ground", "grey levels", "less", "luminance error on ground that is not",
                  lambda c: _ground_error(c, c.context.lit)),
    "shadow_rmse": Metric("shadow RMSE", "grey levels", "less", "root mean square error of colours in the true shadow",
                          lambda c: None if c.context.shaded is None else
                          shadows.shadow_rmse(c.picture, c.truth, c.context.shaded)),
    "shadow_ber": Metric("shadow BER", "share", "less", "balanced error rate of ground in shadow", _balanced_error),
    "contact": Metric("contact", "share", "more", "of the shadow right below the objects that is there", _contact),
    "light": Metric("light agreement", "degrees", "less", "by which two shadows point apart more than in the truth",
                    _light),
    "order": Metric("order", "share", "more", "overlaps with the right object in front", _order),
    "identity": Metric("identity", "share", "more", f"objects nearest to their own reference among {CHOICES}",
                       lambda c: appearance.identity(c.objects, c.context.references, c.example, c.context.gallery)),
    "assignment": Metric("assignment", "share", "more", "objects nearest to their own reference of the sample's",
                         lambda c: appearance.assignment(c.similarity)),
    "leak": Metric("leak", "", "less", "similarity of a region to the other references above the truth's",
                   lambda c: appearance.leak(c.similarity, c.context.truth_similarity)),
    "ceiling": Metric("copy-paste", "", "less", "similarity to the own reference above what the truth reaches",
                      lambda c: appearance.ceiling(c.similarity, c.context.truth_similarity)),
    "detail": Metric("fine detail", "", "more", "correlation of letters, logos, patterns with the truth's", _detail),
    "chamfer": Metric("colour Chamfer", "", "less", "distance in Lab of objects' colours to their references'",
                      _colour_chamfer),
    "missing": Metric("missing", "share", "less", "objects of which less than a quarter is there",
                      lambda c: pixels.missing_share(c.picture, c.truth, c.example.background,
                                                     c.example.visible_masks)),
    "untouched": Metric("changed outside", "pixels", "less", "that differ from the background outside the regions",
                        _count_changed_outside),
    "background_mse": Metric("background MSE", "", "less", "outside the regions to the background, values from 0 to 1",
                             lambda c: pixels.background_error(c.picture, c.example.background, ~c.example.allowed)),
    "sharpness": Metric("sharpness", "", "neither", "gradient energy in the regions over the truth's",
                        lambda c: pixels.sharpness(c.picture, c.truth, c.example.inside)),
    "order_dependence": Metric("order dependence", "grey levels", "less",
                               "change when objects change their places in the list", _order_dependence),
    "lpips": Metric("LPIPS", "", "less", "of the whole picture by AlexNet (Zhang et al. 2018; --features)",
                    lambda c: _whole(c.lpips), needs="lpips", needs_objects=False),
    "lpips_region": Metric("LPIPS in regions", "", "less", "its map's mean in the union of the regions",
                           lambda c: _mean_in(c.lpips, c.example.inside), needs="lpips"),
    "lpips_overlap": Metric("LPIPS in overlap", "", "less", "its map's mean where regions overlap",
                            lambda c: _mean_in(c.lpips, c.example.overlap), needs="lpips"),
    "dino_i": Metric("DINO-I", "", "more", "similarity of objects to their references by DINOv2 (--features)",
                     lambda c: float(c.dino.mean()), needs="dino"),
    "collapse_40": _collapse(0.4),
    "collapse_50": _collapse(0.5),
    "collapse_60": _collapse(0.6),
    "clip_i": Metric("CLIP-I", "", "more", "similarity of objects to their references by CLIP (--features)",
                     lambda c: float(c.feature_similarity("clip").mean()), needs="clip"),
}  # fmt: skip


def compute_metrics(composite: Composite, names: Sequence[str]) -> dict[str, float | None]:
    """Metrics of a composite in the order of `METRICS`; None where one is undefined for the example.

    Raises:
        PicsError: a value that is not finite.
    """
    values: dict[str, float | None] = {}
    for name, metric in METRICS.items():
        if name in names:
            known = bool(composite.example.references) or not metric.needs_objects
            value = metric.compute(composite) if known else None
            if value is not None and not np.isfinite(value):
                raise PicsError(f"{composite.example.key}: {name} is {value}", "please report it with the sample")
            values[name] = None if value is None else float(value)
    return values


def check_names(names: Sequence[str], where: str = "--metrics") -> None:
    """Raise PicsError for a name that is no metric's, with the nearest that is; `where` it was given."""
    for name in names:
        if name not in METRICS:
            near = get_close_matches(name, METRICS, n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise PicsError(f"{where}: got {name}, which is no metric", f"{guess}known: {', '.join(METRICS)}")


def select_metrics(names: Sequence[str], kinds: set[str]) -> tuple[list[str], dict[str, str]]:
    """Metrics to compute, and those that cannot be, with the reason.

    Args:
        names: of the metrics that are wanted; empty: all.
        kinds: of the networks that are available.

    Raises:
        PicsError: none of those wanted can be computed.
    """
    missing = {
        name: f"needs --features with {metric.needs.upper()} weights"
        for name, metric in METRICS.items()
        if metric.needs and metric.needs not in kinds
    }
    selected = [name for name in METRICS if name not in missing and (not names or name in names)]
    if not selected:
        usual = _USUAL_WEIGHTS[METRICS[names[0]].needs]
        raise PicsError(f"--metrics {names[0]}: {missing[names[0]]}", f"such as --features {usual}")
    return selected, {name: reason for name, reason in missing.items() if not names or name in names}
