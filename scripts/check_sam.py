"""Are these the weights of Segment Anything, and do they work here? Boxes of drawn scenes against their true masks.

    python scripts/check_sam.py --checkpoint checkpoints/sam_vit_b_01ec64.pth --sam vit_b [--device cuda]

20 scenes of `synth`'s held-out pool; each object's box, as far as it is seen, is the prompt. Prints the IoU of each
scene's masks and their mean, and writes a sheet with --sheet. Exit code 0: the mean is at least --least (0.8), what
trained weights reach with room to spare and random ones do not; 1: it is not.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pics_cli.console import start_logging
from pics_cli.errors import FAILED, BadSample, PicsError
from run_script import run_script

SCENES, SIZE, SEED, LEAST = 20, 512, 2026, 0.8


class Result(NamedTuple):
    """A scene: its picture, true and predicted masks, and their IoU."""

    picture: np.ndarray
    truth: list[np.ndarray]
    masks: np.ndarray
    iou: list[float]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two masks, bool [H, W]; 1 where both are empty."""
    either = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / either if either else 1.0


def segment_scenes(segmenter: Any, side: int) -> list[Result]:
    """All scenes with the model's masks."""
    from pics_cli.core.images.masks import box_mask
    from pics_cli.core.scenes.drawn.plan import plan_scene
    from pics_cli.core.scenes.drawn.render import render_scene
    from pics_cli.core.scenes.drawn.spec import SceneSettings
    from pics_cli.core.segmentation.preprocessing import resize_for_sam

    settings = SceneSettings(
        SIZE, 2, (("apart", 1.0), ("touching", 1.0), ("occluding", 1.0), ("supporting", 1.0)), 0.0, 0.0
    )
    results = []
    for index in range(SCENES):
        scene = render_scene(plan_scene(settings, "held_out", SEED, index))
        truth = [mask for mask in scene.masks if mask.any()]
        boxes = np.array([box_mask(mask).box for mask in truth], np.float64)
        (predicted,) = segmenter([resize_for_sam(scene.image, boxes, side)])
        if isinstance(predicted, BadSample):
            raise PicsError(f"scene {index}: {predicted.detail}", "take a device with more memory", FAILED)
        results.append(
            Result(
                scene.image, truth, predicted.masks, [iou(*pair) for pair in zip(truth, predicted.masks, strict=True)]
            )
        )
    return results


def draw(results: list[Result], path: Path) -> None:
    """A sheet of all scenes: masks tinted, the true outlines drawn."""
    import cv2

    from pics_cli.core.datasets.contact_sheet import write_sheet
    from pics_cli.core.images.sheets import Tile, fit_height, object_colour, tint

    tiles = []
    for result in results:
        rgb = result.picture.copy()
        for k, (mask, true) in enumerate(zip(result.masks, result.truth, strict=True)):
            tint(rgb, mask, object_colour(k), 0.5)
            outline = cv2.findContours(true.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
            cv2.drawContours(rgb, outline, -1, (255, 255, 255), 2)
        words = "IoU " + ", ".join(f"{value:.2f}" for value in result.iou)
        tiles.append(Tile(fit_height(rgb)[0], (words, "tinted: the model's; white: true")))
    write_sheet(path, "masks of Segment Anything from boxes of drawn scenes", tiles)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: the official file in checkpoints/")
    parser.add_argument("--sam", default="vit_h", metavar="NAME|DIR", help="vit_h, vit_l, vit_b or a folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    parser.add_argument("--dtype", default="auto", help="auto, bf16, fp16 or fp32")
    parser.add_argument("--least", type=float, default=LEAST, metavar="X", help=f"mean IoU asked for; default {LEAST}")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw all scenes")
    options = parser.parse_args()
    start_logging(True)
    if options.sheet is not None and options.sheet.suffix != ".png":
        raise PicsError(f"--sheet {options.sheet}: expected the name of a .png file")

    from pics_cli.core.model.devices import choose_device, choose_dtype
    from pics_cli.core.segmentation import sam
    from pics_cli.core.segmentation.segmenter import Segmenter

    weights = sam.find_checkpoint(options.sam, options.checkpoint)
    device = choose_device(options.device)
    model = sam.load_sam(weights, device, choose_dtype(options.dtype, device))
    segmenter = Segmenter(model, batch_images=1, batch_boxes=16, multimask=True)
    results = segment_scenes(segmenter, weights.shape.side)
    for number, result in enumerate(results):
        print(f"scene {number:2}: IoU {', '.join(f'{value:.3f}' for value in result.iou)}")
    mean = float(np.mean([value for result in results for value in result.iou]))
    good = mean >= options.least
    print(
        f"mean IoU {mean:.3f}: {'these weights work' if good else f'below {options.least}: these weights do not work'}"
    )
    if options.sheet is not None:
        draw(results, options.sheet)
    return 0 if good else FAILED


if __name__ == "__main__":
    run_script(main)
