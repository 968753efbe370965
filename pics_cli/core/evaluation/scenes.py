"""Drawn scenes with known truth, to measure composites on: what a method is given, and what it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.data.cutouts import SOLID
from pics_cli.core.data.masks import Mask
from pics_cli.core.data.pictures import RGB
from pics_cli.core.data.synth.plan import Style, plan_scene
from pics_cli.core.data.synth.render import Rendered, render
from pics_cli.core.evaluation import figures
from pics_cli.core.evaluation.descriptor import Descriptor, describe
from pics_cli.core.geometry import Box, by_lower_edge, clip_box, scaled
from pics_cli.core.rng import generator
from pics_cli.core.sources import Pool, SceneRelation

# Numbers of the scenes whose objects are only there to be told apart from: beyond those that are measured.
_OTHERS, OTHER_SCENES = 10_000_000, 24
# References that an object is sought among.
CHOICES = 16
FIGURES = ("psnr", "seam", "seam_box", "seam_object", "shadow", "lit", "order", "identity", "sharpness")


@dataclass(frozen=True)
class Case:
    """A scene of two objects.

    Attributes:
        index: its number.
        scene: the truth, the picture without objects, masks, and the objects seen differently.
        wrong: the scene with each object wholly in front, but for what is the truth itself.
        places: box of each object with its hidden parts.
        regions: where each may be painted: the places grown, inside the picture.
        order: back to front as a guess by the regions: what every method is given.
        relation: how the two stand to each other.
    """

    index: int
    scene: Rendered
    wrong: tuple[RGB, ...]
    places: tuple[Box, ...]
    regions: tuple[Box, ...]
    order: tuple[int, ...]
    relation: SceneRelation

    @property
    def references(self) -> tuple[npt.NDArray[np.uint8], ...]:
        """What is pasted: uint8 RGBA [224, 224, 4] of each object."""
        return self.scene.alternates


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
    return Case(index, scene, wrong, places, regions, tuple(by_lower_edge(regions)), pair.relation)


def bounds(mask: Mask) -> Box:
    """Box of a mask's set pixels."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x, y, x + width, y + height


def reference_descriptors(references: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Of pictures with alpha, uint8 [h, w, 4]: float32 [K, d]."""
    return np.stack([describe(each[..., :3], each[..., 3] >= SOLID) for each in references])


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
    for k, visible in enumerate(case.scene.masks):
        if not visible.any():
            continue
        rng = generator(seed, "identity", case.index, k)
        chosen = others[rng.choice(len(others), CHOICES - len(own), replace=False)]
        seen: Descriptor = describe(result, visible, case.places[k])
        found.append(bool(own[k] @ seen > max((np.delete(own, k, axis=0) @ seen).max(), (chosen @ seen).max())))
    return float(np.mean(found)) if found else None


def judge(result: RGB, case: Case, others: npt.NDArray[np.float32], seed: int) -> dict[str, float]:
    """Every figure of a composite, by the names of `FIGURES`; nan where the scene has nothing to judge it by.

    seam is of all pairs of pixels along the borders of regions (seam_box) and objects (seam_object); order is 0 or 1.
    """
    scene, truth = case.scene, case.scene.image
    inside = figures.union(case.regions, *truth.shape[:2])
    box, outline = figures.seam(result, truth, inside), figures.object_seam(result, truth, scene.masks)
    found: dict[str, float | None] = {
        "psnr": figures.region_psnr(result, truth, inside),
        "seam": figures.pooled([box, outline]).mean,
        "seam_box": box.mean,
        "seam_object": outline.mean,
        "shadow": figures.shadow_error(result, truth, scene.clean, scene.full, inside),
        "lit": figures.lit_error(result, truth, scene.clean, scene.full, inside),
        "order": figures.right_order(result, truth, case.wrong, scene.full[0] & scene.full[1]),
        "identity": identity(result, case, others, seed),
        "sharpness": figures.sharpness(result, truth, inside),
    }
    return {name: float("nan") if value is None else float(value) for name, value in found.items()}
