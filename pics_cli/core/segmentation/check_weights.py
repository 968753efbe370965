"""Are these the weights of Segment Anything, and do they work here? Boxes of drawn scenes against their true masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pics_cli.core.datasets.contact_sheet import write_sheet
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask, box_mask
from pics_cli.core.images.sheets import Tile, fit_height, object_colour, tint
from pics_cli.core.runtime.progress import Progress
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import render_scene
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.core.segmentation.preprocessing import resize_for_sam
from pics_cli.errors import FAILED, BadSample, PicsError

SCENES = 20
_SIZE, _SEED = 512, 2026


class CheckedScene(NamedTuple):
    """A scene: its picture uint8 [S, S, 3], true masks bool [S, S], predicted ones bool [K, S, S], their IoU 0..1."""

    picture: RGB
    truth: list[Mask]
    masks: Mask
    iou: list[float]


def mask_iou(a: Mask, b: Mask) -> float:
    """IoU of two masks, bool [H, W]; 1 where both are empty."""
    either = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / either if either else 1.0


def check_scenes(segmenter: Any, side: int, progress: Progress) -> Iterator[CheckedScene]:
    """Segment `SCENES` scenes of the held-out pool of `synth`; the prompt is each object's box, as far as it is seen.

    Args:
        segmenter: a `Segmenter`.
        side: of the pictures that its model takes.
        progress: counts scenes.

    Raises:
        PicsError: out of memory.
    """
    progress.total = SCENES
    settings = SceneSettings(
        _SIZE, 2, (("apart", 1.0), ("touching", 1.0), ("occluding", 1.0), ("supporting", 1.0)), 0.0, 0.0
    )
    for index in range(SCENES):
        scene = render_scene(plan_scene(settings, "held_out", _SEED, index))
        truth = [mask for mask in scene.masks if mask.any()]
        boxes = np.array([box_mask(mask).box for mask in truth], np.float64)
        (predicted,) = segmenter([resize_for_sam(scene.image, boxes, side)])
        if isinstance(predicted, BadSample):
            raise PicsError(f"scene {index}: {predicted.detail}", "take a device with more memory", FAILED)
        progress.done += 1
        iou = [mask_iou(*pair) for pair in zip(truth, predicted.masks, strict=True)]
        yield CheckedScene(scene.image, truth, predicted.masks, iou)


def draw_scenes(scenes: list[CheckedScene], path: Path) -> None:
    """A sheet of all scenes: masks tinted, the true outlines drawn."""
    tiles = []
    for scene in scenes:
        rgb = scene.picture.copy()
        for k, (mask, true) in enumerate(zip(scene.masks, scene.truth, strict=True)):
            tint(rgb, mask, object_colour(k), 0.5)
            outline = cv2.findContours(true.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
            cv2.drawContours(rgb, outline, -1, (255, 255, 255), 2)
        words = "IoU " + ", ".join(f"{value:.2f}" for value in scene.iou)
        tiles.append(Tile(fit_height(rgb)[0], (words, "tinted: the model's; white: true")))
    write_sheet(path, "masks of Segment Anything from boxes of drawn scenes", tiles)
