"""Convert a checkpoint of the research code into a model folder that `pics infer --model` takes.

    python scripts/convert_checkpoint.py CKPT OUT [--dinov2 FILE] [--dtype bf16]

CKPT: a Lightning or torch checkpoint, or safetensors, as the research code saves it. Its tensors are read one by one
(the published 18 GB: about 5 GB of memory with --dtype bf16, computed) and nothing in it is executed. Every tensor is
accounted for: OUT/conversion.json lists what each became, and which are not needed and why. Anything unknown or missing
is an error, and nothing is written then.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from run_script import run_script

DTYPES = ("bf16", "fp16", "fp32")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="the research checkpoint")
    parser.add_argument("out", type=Path, metavar="OUT", help="model folder to make; must not exist")
    parser.add_argument("--dinov2", type=Path, metavar="FILE", help="dinov2_vitg14_pretrain.pth, if CKPT lacks it")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the weights written (default fp32)")
    shape = parser.add_argument_group("shape that weights do not tell; the defaults are the published network's")
    shape.add_argument("--head-width", type=int, default=64, metavar="N", help="of the networks' attention heads")
    shape.add_argument("--encoder-head-width", type=int, default=64, metavar="N", help="of DINOv2's attention heads")
    shape.add_argument("--image-size", type=int, default=512, metavar="N", help="side of the square the network sees")
    return parser.parse_args()


def main() -> None:
    options = arguments()

    from pics_cli import console
    from pics_cli.core.model.convert import REPORT_FILE, convert_checkpoint
    from pics_cli.core.model.devices import DTYPES as dtypes

    console.start_logging(speaks=True)
    report = convert_checkpoint(
        options.checkpoint,
        options.out,
        dinov2=options.dinov2,
        dtype=dtypes[options.dtype],
        head_width=options.head_width,
        encoder_head_width=options.encoder_head_width,
        image_size=options.image_size,
    )
    print(f"{sum(map(len, report.mapped.values()))} tensors mapped, {len(report.dropped)} not needed, 0 missing")
    for reason, count in report.reasons.most_common():
        print(f"  {count} not needed: {reason}")
    print(f"{options.out}: ready for --model; {options.out / REPORT_FILE} lists every tensor")


if __name__ == "__main__":
    run_script(main)
