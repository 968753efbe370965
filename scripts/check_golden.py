"""Compare this network with golden numbers of the research network, on the plain and on the fast path.

    python scripts/check_golden.py --golden DIR [--device cpu]

DIR holds block.safetensors, net.safetensors, encoder.safetensors and compose.safetensors, laid out as the project's
golden numbers are: weights under the research code's names, inputs and outputs; shapes are read from the files and
their metadata. One line is printed for each figure: relative L2 distance, or for preprocessing grey levels and mask
pixels. The exit code is 1 if any is above its limit, 2 if a file or tensor is missing.

`plain` computes the equations as they stand, `fast` is what `pics infer` runs. `alone` runs one sample at a time, as
the golden numbers were made; `batch` runs all samples at once. Each figure is the worst sample's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pics_cli.errors import FAILED
from run_script import run_script


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, required=True, metavar="DIR", help="folder of golden numbers")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N; always in full float32")
    options = parser.parse_args()

    from golden import check_all

    print(f"{'figure':52} {'plain':>9} {'fast':>9} {'limit':>9}")
    total = above = 0
    for figure in check_all(options.golden, options.device):
        total, above = total + 1, above + (not figure.good)
        plain = "-" if figure.plain is None else f"{figure.plain:.2e}"
        word = "ok" if figure.good else "ABOVE"
        print(f"{figure.name:52} {plain:>9} {figure.fast:>9.2e} {figure.limit:>9.0e}  {word}", flush=True)
    print(f"{total} figures, {above} above their limit")
    return FAILED if above else 0


if __name__ == "__main__":
    run_script(main)
