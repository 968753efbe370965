"""What can be taken home from the page: the sample as a folder that `pics infer` reads, and layers."""

from __future__ import annotations

import io
import shlex
import zipfile
from pathlib import Path

import numpy as np

from pics_cli.core.images.masks import BoxMask
from pics_cli.core.inference.inputs import decode, read_parts
from pics_cli.ui.job import Job

_COMMAND = "command.txt"


def sample_zip(job: Job) -> bytes:
    """A zip of the sample folder that a job was made from, with the command that makes the same pictures of it."""
    sample = decode(job.sample, read_parts(job.sample))
    height, width = sample.background.shape[:2]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for path in job.sample.parts().values():
            file.write(job.sample.root / path, f"{job.sample.id}/{path}")
        for k, (x0, y0, x1, y1) in enumerate(sample.boxes):
            mask = BoxMask((x0, y0, x1, y1), np.ones((y1 - y0, x1 - x0), np.bool_), height, width)
            file.writestr(f"{job.sample.id}/object_{k}_mask.png", mask.png())
        file.writestr(f"{job.sample.id}/{_COMMAND}", f"{infer_command(job)}\n")
    return out.getvalue()


def folder_zip(folder: Path) -> bytes:
    """A zip of a folder's files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, f"{folder.name}/{path.relative_to(folder)}")
    return out.getvalue()


def infer_command(job: Job) -> str:
    """The command line that makes a job's pictures of its unpacked sample folder."""
    inference = job.job
    words = ["pics", "infer", "--input", job.sample.id, "--model", inference.model]
    for adapter in inference.adapters:
        words += ["--lora", f"{adapter.path}:{adapter.weight:g}"]
    options = inference.options
    for name, value in (("seed", options.seed), ("steps", options.steps), ("guidance", options.guidance)):
        words += [] if value is None else [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    order = inference.order
    if order is not None:
        words += ["--order", order if isinstance(order, str) else ",".join(map(str, order))]
    words += ["--num", str(inference.num), "--cutout", inference.cutout, "--fit", options.fit]
    return shlex.join([*words, *(["--layers"] if inference.layers else [])])
