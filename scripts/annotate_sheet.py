"""The contact sheet of `pics annotate` on drawn scenes, to show what it looks like: no weights are needed.

    python scripts/annotate_sheet.py SHEET.png

Boxes are the scenes' own. Masks are theirs, distorted more and more from scene to scene, as a model's might be; the
score is their true IoU. The sheet is drawn and the masks are flagged as the command does it, worst first.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from pics_cli.core.datasets.contact_sheet import write_sheet
from pics_cli.core.datasets.labels import LabelledImage
from pics_cli.core.images.masks import Mask, box_mask
from pics_cli.core.images.sheets import Tile
from pics_cli.core.recipes.sources import SamSettings
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import render_scene
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.core.segmentation.boxes import AnnotatedBox
from pics_cli.core.segmentation.contact_sheet import ChosenImage, captions, draw_labels
from pics_cli.core.segmentation.postprocessing import make_labels, pack_masks
from pics_cli.errors import PicsError
from run_script import run_script

SCENES, SIZE, SEED = 12, 320, 11
SETTINGS = SceneSettings(
    SIZE, 3, (("apart", 1.0), ("occluding", 1.0), ("supporting", 1.0), ("containing", 1.0)), 0.0, 0.0
)


def distort(mask: Mask, rng: np.random.Generator, most: float) -> Mask:
    """A mask with blobs added along its outline and taken out of it, the more the larger `most`, 0 to 1."""
    field = cv2.GaussianBlur(rng.normal(0, 1, mask.shape).astype(np.float32), (0, 0), 9)
    inside = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 5)
    distorted: Mask = inside - outside + field / field.std() * 24 * most > 0
    return distorted if distorted.any() else mask


def tile(index: int, rng: np.random.Generator) -> tuple[float, Tile]:
    """A scene's lowest score, and its part of the sheet."""
    scene = render_scene(plan_scene(SETTINGS, "held_out", SEED, index))
    truth = [mask for mask in scene.masks if mask.any()]
    most = max(0.0, rng.normal(index / SCENES - 0.4, 0.1))
    masks = np.stack([distort(mask, rng, most) for mask in truth])
    scores = [float((a & b).sum() / (a | b).sum()) for a, b in zip(masks, truth, strict=True)]
    boxes = np.array([box_mask(mask).box for mask in truth], np.float64)
    given = [AnnotatedBox(k, None, None, (x0, y0, x1, y1), False) for k, (x0, y0, x1, y1) in enumerate(boxes.tolist())]
    labels = make_labels(pack_masks(masks), scores, scores, given, boxes, SamSettings())
    picture = LabelledImage(index, f"scene {index}", "", SIZE, SIZE, labels)
    lowest = min(scores)
    return lowest, Tile(draw_labels(scene.image, picture), captions(picture, ChosenImage(0, index, lowest)))


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].endswith(".png"):
        raise PicsError("expected the name of a .png file", "python scripts/annotate_sheet.py SHEET.png")
    rng = np.random.default_rng(SEED)
    tiles = sorted((tile(index, rng) for index in range(SCENES)), key=lambda entry: entry[0])
    write_sheet(
        Path(sys.argv[1]), "synth held_out: masks by their lowest score", [scene_tile for _, scene_tile in tiles]
    )


if __name__ == "__main__":
    run_script(main)
