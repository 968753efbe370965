"""`pics merge-layers`: layers of a composite, perhaps edited, become one picture again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pics_cli import console
from pics_cli.commands.choices import check_png


def merge_layers(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of layers: results/NAME/layers/layers_ID.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Picture to write.  [default: DIR/merged.png]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture if it is there.")] = False,
) -> None:
    """Put the layers that pics infer --layers wrote together again, after any of them was edited.

    Each acts on what lies below it as layers.json says: it is laid over, multiplied or added. Untouched layers give the
    composite to the bit. Layers keep their size and depth (8 or 16 bits), and objects their alpha.
    """
    check_png("--output", output)
    from pics_cli.commands.results import MergedLayers
    from pics_cli.core.inference.layer_files import merge_files

    merged = merge_files(folder, output, overwrite)
    console.result(MergedLayers(layers=merged.layers, unchanged=merged.unchanged, picture=merged.path))
    rows = [
        ("layers", f"{merged.layers}"),
        ("as the composite", "yes, to the bit" if merged.unchanged else "no: edited"),
        ("picture", str(merged.path)),
    ]
    console.table(str(folder), rows)
