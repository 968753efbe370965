"""Drawn scenes with known truth, to measure composites on: what a method is given, and what it is judged by."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.data.masks import Mask
from pics_cli.core.data.pictures import RGB
from pics_cli.core.data.synth.plan import Style, plan_scene
from pics_cli.core.data.synth.render import render
from pics_cli.core.evaluation import figures
from pics_cli.core.evaluation.case import Case, reference_descriptors
from pics_cli.core.evaluation.descriptor import Descriptor, describe
from pics_cli.core.geometry import Box, box_iou, by_lower_edge, clip_box, scaled
from pics_cli.core.rng import generator
from pics_cli.core.sources import Pool

# Numbers of the scenes whose objects are only there to be told apart from: beyond those that are measured.
_OTHERS, OTHER_SCENES = 10_000_000, 24
# References that an object is sought among.
CHOICES = 16
FIGURES = ("psnr", "seam", "seam_box", "seam_object", "shadow", "lit", "order", "identity", "sharpness")


def make_case(style: Style, seed: int, index: int, fill: float, pool: Pool = "held_out") -> Case:
    """Draw a scene; a function of its arguments alone.

    Args:
        style: of two objects.
        seed, index: which scene.
        fill: share of a region's sides that the object's place takes.
        pool: of shapes, colours and textures.

    Raises:
        PicsError: no room for the objects.
    """
    plan = plan_scene(style, pool, seed, index)
    scene = render(plan)
    (pair,) = scene.pairs
    places = tuple(bounds(mask) for mask in scene.full)
    size = style.size
    regions = tuple(clip_box(scaled(place, 1 / fill), size, size) for place in places)
    orders = [scene.order[::-1]] + ([scene.order] if pair.relation == "containing" else [])
    overlap = bool(np.any(scene.full[0] & scene.full[1]))
    wrong = tuple(render(plan, order).image for order in orders) if overlap else ()
    return Case(
        key=f"{index:08d}",
        background=scene.clean,
        truth=scene.image,
        references=scene.alternates,
        places=places,
        regions=regions,
        order=tuple(by_lower_edge(regions)),
        visible=scene.masks,
        full=scene.full,
        clean=True,
        wrong=wrong,
        front=tuple(scene.order),
        relation=pair.relation,
        iou=float(box_iou(*(np.array([place], np.float64) for place in places))[0, 0]),
    )


def bounds(mask: Mask) -> Box:
    """Box of a mask's set pixels."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x, y, x + width, y + height


def other_references(style: Style, seed: int, pool: Pool = "held_out") -> npt.NDArray[np.float32]:
    """Descriptors of references from scenes that are not measured, float32 [48, d]."""
    drawn = (render(plan_scene(style, pool, seed, _OTHERS + number)) for number in range(OTHER_SCENES))
    return np.concatenate([reference_descriptors(scene.alternates) for scene in drawn])


def identity(result: RGB, case: Case, others: npt.NDArray[np.float32], seed: int) -> float | None:
    """Share of the objects that look most like their own reference among 16.

    An object is what the result shows on the pixels that it covers in truth. The 15 others are the reference of the
    scene's other object and 14 of `others`, drawn for this object.

    Args:
        result: uint8 [H, W, 3].
        case: its scene.
        others: float32 [n, d], from `other_references`.
        seed: of the draw.

    Returns:
        0, 0.5 or 1; None where neither object is seen.
    """
    own = reference_descriptors(case.references)
    found = []
    for k, visible in enumerate(case.visible):
        if not visible.any():
            continue
        rng = generator(seed, "identity", case.key, k)
        chosen = others[rng.choice(len(others), CHOICES - len(own), replace=False)]
        seen: Descriptor = describe(result, visible, case.places[k])
        found.append(bool(own[k] @ seen > max((np.delete(own, k, axis=0) @ seen).max(), (chosen @ seen).max())))
    return float(np.mean(found)) if found else None


def judge(result: RGB, case: Case, others: npt.NDArray[np.float32], seed: int) -> dict[str, float]:
    """Every figure of a composite, by the names of `FIGURES`; nan where the scene has nothing to judge it by.

    seam is of all pairs of pixels along the borders of regions (seam_box) and objects (seam_object); order is 0 or 1.
    """
    truth, full = case.truth, case.full
    assert full is not None
    inside = figures.union(case.regions, *truth.shape[:2])
    box, outline = figures.seam(result, truth, inside), figures.object_seam(result, truth, case.visible)
    found: dict[str, float | None] = {
        "psnr": figures.region_psnr(result, truth, inside),
        "seam": figures.pooled([box, outline]).mean,
        "seam_box": box.mean,
        "seam_object": outline.mean,
        "shadow": figures.shadow_error(result, truth, case.background, full, inside),
        "lit": figures.lit_error(result, truth, case.background, full, inside),
        "order": figures.right_order(result, truth, case.wrong, full[0] & full[1]),
        "identity": identity(result, case, others, seed),
        "sharpness": figures.sharpness(result, truth, inside),
    }
    return {name: float("nan") if value is None else float(value) for name, value in found.items()}
