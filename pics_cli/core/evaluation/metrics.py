"""The registry of metrics. A new one is an entry of `METRICS` and, if it needs one, a pure function elsewhere.

Formulas: docs/metrics.md; as code: `pixel_metrics`, `appearance_metrics`, `networks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Literal

import numpy as np

from pics_cli.core.evaluation import appearance_metrics as appearance
from pics_cli.core.evaluation import pixel_metrics as pixels
from pics_cli.core.evaluation.appearance_metrics import CHOICES, ReferenceGallery
from pics_cli.core.evaluation.descriptor import Floats, describe_references
from pics_cli.core.evaluation.examples import Example
from pics_cli.core.evaluation.networks import (
    Features,
    ImageEncoder,
    Inception,
    Lpips,
    cosine_similarity,
    crop_objects,
    pad_references,
)
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask
from pics_cli.errors import PicsError

# Commonly used weights of each kind.
_USUAL_WEIGHTS = {"dino": "facebook/dinov2-base", "clip": "openai/clip-vit-large-patch14", "lpips": "alexnet"}


@dataclass(frozen=True)
class ExampleContext:
    """An example, networks of learnt metrics by kind, and values that all of its composites share, computed once."""

    example: Example
    gallery: ReferenceGallery
    networks: Mapping[str, ImageEncoder | Inception | Lpips] = field(default_factory=dict)

    @cached_property
    def references(self) -> Floats:
        """Descriptors, float32 [K, d]."""
        return describe_references(self.example.references)

    @cached_property
    def truth_similarity(self) -> Floats:
        """Similarity of the objects in the truth to the references, float32 [K, K]."""
        similarity: Floats = appearance.describe_objects(self.example.truth, self.example) @ self.references.T
        return similarity

    @cached_property
    def reference_features(self) -> dict[str, Features]:
        """Features of the references by kind of image encoder, float32 [K, d]."""
        crops = pad_references(self.example.references)
        return {kind: net(crops) for kind, net in self.networks.items() if isinstance(net, ImageEncoder)}


@dataclass(frozen=True)
class Composite:
    """A picture made of an example, and values that several metrics share, computed once.

    Attributes:
        picture: uint8 [H, W, 3], of the truth's size.
        context: of the example.
        composite_reversed: makes the same picture with the objects listed the other way round; None: there is no model.

    Raises:
        PicsError: the picture has another size than the truth.
    """

    picture: RGB
    context: ExampleContext
    composite_reversed: Callable[[], RGB] | None = None

    def __post_init__(self) -> None:
        if self.picture.shape != self.truth.shape:
            own, truth = ("x".join(str(side) for side in rgb.shape[1::-1]) for rgb in (self.picture, self.truth))
            key = self.example.key
            raise PicsError(f"{key}: the picture is {own}, the truth {truth}", "results keep the truth's size")

    @property
    def example(self) -> Example:
        return self.context.example

    @property
    def truth(self) -> RGB:
        return self.example.truth

    @cached_property
    def objects(self) -> Floats:
        """Descriptors of each object in the picture, float32 [K, d]."""
        return appearance.describe_objects(self.picture, self.example)

    @cached_property
    def similarity(self) -> Floats:
        """Similarity of object i in the picture to reference j, float32 [K, K]."""
        if not self.example.references:
            return np.zeros((0, 0), np.float32)
        similarity: Floats = self.objects @ self.context.references.T
        return similarity

    @cached_property
    def ssim(self) -> tuple[float, Floats] | None:
        return pixels.ssim(self.picture, self.truth)

    @cached_property
    def lpips(self) -> tuple[float, Floats] | None:
        network = self.context.networks["lpips"]
        assert isinstance(network, Lpips)
        return network(self.picture, self.truth)

    @cached_property
    def region_seam(self) -> pixels.SeamError:
        """Along the border of the regions' union."""
        return pixels.seam_error(self.picture, self.truth, self.example.inside)

    @cached_property
    def object_seam(self) -> pixels.SeamError:
        """Along the outlines of what is seen of each object in the truth."""
        masks = self.example.visible_masks
        return pixels.pool_seams([pixels.seam_error(self.picture, self.truth, mask) for mask in masks])


def _psnr_of(c: Composite, inside: Mask | None = None) -> float | None:
    return pixels.psnr(c.picture, c.truth, inside)


def _whole(measured: tuple[float, Floats] | None) -> float | None:
    return None if measured is None else measured[0]


def _mean_in(measured: tuple[float, Floats] | None, mask: Mask) -> float | None:
    return float(measured[1][mask].mean()) if measured is not None and mask.any() else None


def _ground_error(c: Composite, error: Callable[[RGB, RGB, RGB, Sequence[Mask], Mask], float | None]) -> float | None:
    example = c.example
    if example.full_masks is None or not example.true_background:
        return None
    return error(c.picture, c.truth, example.background, example.full_masks, example.inside)


def _order(c: Composite) -> float | None:
    full = c.example.full_masks
    if full is None or len(full) != 2:
        return None
    right_orders = (c.truth, *c.example.pasted_orders)
    return pixels.is_order_right(c.picture, right_orders, c.example.wrong_orders, full[0] & full[1])


def _count_changed_outside(c: Composite) -> float:
    return float(np.count_nonzero((c.picture != c.example.background).any(axis=2) & ~c.example.inside))


def _order_dependence(c: Composite) -> float | None:
    if c.composite_reversed is None or len(c.example.references) < 2:
        return None
    return pixels.mean_difference(c.picture, c.composite_reversed(), c.example.inside)


def _feature_similarity(c: Composite, kind: str) -> float:
    encoder = c.context.networks[kind]
    assert isinstance(encoder, ImageEncoder)
    crops = crop_objects(c.picture, c.example.paste_boxes)
    return float(cosine_similarity(encoder(crops), c.context.reference_features[kind]).mean())


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


METRICS: dict[str, Metric] = {
    "psnr": Metric("PSNR", "dB", "more", "of the whole picture to the truth", _psnr_of, needs_objects=False),
    "psnr_region": Metric("PSNR in regions", "dB", "more", "in the union of the regions",
                          lambda c: _psnr_of(c, c.example.inside)),
    "psnr_overlap": Metric("PSNR in overlap", "dB", "more", "where regions overlap",
                           lambda c: _psnr_of(c, c.example.overlap)),
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
                     lambda c: _ground_error(c, pixels.shadow_error)),
    "lit": Metric("lit ground", "grey levels", "less", "luminance error on ground that is not",
                  lambda c: _ground_error(c, pixels.lit_error)),
    "order": Metric("order", "share", "more", "overlaps with the right object in front", _order),
    "identity": Metric("identity", "share", "more", f"objects nearest to their own reference among {CHOICES}",
                       lambda c: appearance.identity(c.objects, c.context.references, c.example, c.context.gallery)),
    "assignment": Metric("assignment", "share", "more", "objects nearest to their own reference of the sample's",
                         lambda c: appearance.assignment(c.similarity)),
    "leak": Metric("leak", "", "less", "similarity of a region to the other references above the truth's",
                   lambda c: appearance.leak(c.similarity, c.context.truth_similarity)),
    "ceiling": Metric("copy-paste", "", "less", "similarity to the own reference above what the truth reaches",
                      lambda c: appearance.ceiling(c.similarity, c.context.truth_similarity)),
    "missing": Metric("missing", "share", "less", "objects of which less than a quarter is there",
                      lambda c: pixels.missing_share(c.picture, c.truth, c.example.background,
                                                     c.example.visible_masks)),
    "untouched": Metric("changed outside", "pixels", "less", "that differ from the background outside the regions",
                        _count_changed_outside),
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
                     lambda c: _feature_similarity(c, "dino"), needs="dino"),
    "clip_i": Metric("CLIP-I", "", "more", "similarity of objects to their references by CLIP (--features)",
                     lambda c: _feature_similarity(c, "clip"), needs="clip"),
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


def check_names(names: Sequence[str]) -> None:
    """Raise PicsError for a name that is no metric's, with the nearest that is."""
    for name in names:
        if name not in METRICS:
            near = get_close_matches(name, METRICS, n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise PicsError(f"--metrics: got {name}, which is no metric", f"{guess}known: {', '.join(METRICS)}")


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
