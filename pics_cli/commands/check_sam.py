"""`pics check-sam`: do these weights of Segment Anything work here?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pics_cli import console
from pics_cli.commands.choices import Dtype, check_png
from pics_cli.core.runtime.extras import require
from pics_cli.core.runtime.progress import Progress
from pics_cli.errors import FAILED, PicsError


def check_sam(
    sam: Annotated[str, typer.Option(metavar="NAME|DIR", help="vit_h, vit_l, vit_b or a folder.")] = "vit_h",
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The weights.  [default: the official file in checkpoints/]")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Precision.")] = "auto",
    least: Annotated[float, typer.Option(min=0, max=1, metavar="X", help="Mean IoU asked for.")] = 0.8,
    sheet: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw all scenes.")] = None,
) -> None:
    """Hold the masks that weights of Segment Anything make of 20 drawn scenes against the true ones.

    Each object's box is the prompt. Prints the IoU of each scene's masks and their mean. Trained weights reach the mean
    asked for with room to spare, random ones do not; exit code 1 where it is not reached.
    """
    require("annotate", "pics check-sam")
    check_png("--sheet", sheet)
    from pics_cli.commands.results import SamCheck
    from pics_cli.core.model.devices import choose_device, choose_dtype
    from pics_cli.core.runtime.outputs import refuse_other_picture, refuse_overwriting
    from pics_cli.core.segmentation import sam as segment_anything
    from pics_cli.core.segmentation.check_weights import check_scenes, draw_scenes
    from pics_cli.core.segmentation.segmenter import Segmenter

    weights = segment_anything.find_checkpoint(sam, checkpoint)
    if sheet is not None:
        refuse_overwriting([("--sheet", sheet)], [("the weights", weights.path)])
        refuse_other_picture("--sheet", sheet)
    where = choose_device(device)
    model = segment_anything.load_sam(weights, where, choose_dtype(dtype, where))
    segmenter = Segmenter(model, batch_images=1, batch_boxes=16, multimask=True)
    progress = Progress()
    with console.show_progress("check-sam", "scenes", lambda: progress):
        scenes = list(check_scenes(segmenter, weights.shape.side, progress))
    rows = [(f"scene {k}", ", ".join(f"{iou:.3f}" for iou in scene.iou)) for k, scene in enumerate(scenes)]
    values = [iou for scene in scenes for iou in scene.iou]
    mean = sum(values) / len(values)
    verdict = "these weights work" if mean >= least else f"below {least}: these weights do not work"
    console.result(SamCheck(scenes=[list(scene.iou) for scene in scenes], mean=mean, least=least))
    console.table("IoU of the masks", [*rows, ("mean", f"{mean:.3f}"), ("", verdict)])
    if sheet is not None:
        draw_scenes(scenes, sheet)
    if mean < least:
        raise PicsError(
            f"mean IoU of the masks: got {mean:.3f}, expected at least {least}",
            f"{weights.path}: are these trained weights of {sam}?",
            FAILED,
        )
