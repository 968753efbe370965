"""Out of memory, told as which flags to try."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from pics_cli.core.inference.job import Job
from pics_cli.core.model.bundled import is_bundled
from pics_cli.core.model.devices import explain_out_of_memory


def memory_told(job: Job, device: torch.device) -> AbstractContextManager[None]:
    """Turn running out of memory into an error that names the cheaper flags; see `explain_out_of_memory`."""
    return explain_out_of_memory(device, lambda: advice(job, device))


def advice(job: Job, device: torch.device) -> str:
    """Which flags make this job cheaper."""
    flags = []
    if job.batch_size > 1:
        flags.append("--batch-size 1")
    if job.num > 1:
        flags.append("a smaller --num (candidates of later runs differ by --seed)")
    if device.type != "cpu":
        if not is_bundled(job.model):  # of whose memory next to nothing is weights that could lie elsewhere
            modes = {"sequential": ["--memory offload"], "offload": []}
            flags += modes.get(job.memory, ["--memory sequential", "--memory offload"])
        if job.dtype == "fp32":
            flags.append("--dtype bf16")
        return f"try {', then '.join(flags or ['--device cpu'])}; what is finished is kept"
    return f"try {', then '.join([*flags, 'closing other programs'])}; what is finished is kept"
