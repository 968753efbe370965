"""`pics convert`: a checkpoint of the research project becomes a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pics_cli import console
from pics_cli.commands.choices import WeightsDtype
from pics_cli.core.runtime.extras import require
from pics_cli.core.runtime.progress import Progress


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Lightning or torch file, or safetensors.")],
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT", help="Model folder to make.  [default: the checkpoint's name without its ending]"
        ),
    ] = None,
    dinov2: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Original DINOv2 weights instead of the checkpoint's.  [default: dinov2_vitg14_pretrain.pth beside a "
            "checkpoint that has none]",
        ),
    ] = None,
    dtype: Annotated[WeightsDtype, typer.Option(help="Of the weights written.")] = "bf16",
    ema: Annotated[
        bool, typer.Option("--ema", help="Take running averages of the weights, where it has them.")
    ] = False,
    head_width: Annotated[int, typer.Option(min=1, metavar="N", help="Of the networks' attention heads.")] = 64,
    encoder_head_width: Annotated[int, typer.Option(min=1, metavar="N", help="Of DINOv2's attention heads.")] = 64,
    image_size: Annotated[
        int, typer.Option(min=8, metavar="N", help="Side of the square that the network sees.")
    ] = 512,
) -> None:
    """Convert a checkpoint of the research project into a model folder, for --model of pics infer and pics eval.

    The published checkpoint (18.45 GB) takes a minute or two, 1.1 GB of memory and 5.3 GB of disk in bf16, 10.7 GB in
    fp32. Nothing in the file is executed, whatever objects lie beside its weights. Every tensor is accounted for:
    OUT/conversion.json lists what each became and which are not needed, and why; anything unknown or missing is an
    error. Run again after an interruption to go on. The widths and the size are not in the weights; the defaults are
    the published network's.
    """
    require("infer", "pics convert")
    from pics_cli.commands.results import ConvertedModel
    from pics_cli.core.model.convert import convert_checkpoint
    from pics_cli.core.model.devices import DTYPES
    from pics_cli.core.model.model_card import CONVERSION_FILE

    folder = out or checkpoint.with_suffix("")
    progress = Progress()
    with console.show_progress("convert", "tensors", lambda: progress):
        report = convert_checkpoint(
            checkpoint,
            folder,
            dinov2=dinov2,
            dtype=DTYPES[dtype],
            ema=ema,
            head_width=head_width,
            encoder_head_width=encoder_head_width,
            image_size=image_size,
            progress=progress,
        )
    mapped, listing = sum(map(len, report.mapped.values())), folder / CONVERSION_FILE
    console.result(ConvertedModel(folder=folder, mapped=mapped, not_needed=report.reasons, listing=listing))
    rows = [("tensors mapped", f"{mapped:,}")]
    rows += [(f"not needed: {reason}", f"{count:,}") for reason, count in report.reasons.most_common()]
    rows += [
        ("missing", "0"),
        ("every tensor", str(listing)),
        ("composite with it", f"--model {folder}"),
    ]
    console.table(str(folder), rows)
