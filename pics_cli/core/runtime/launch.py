"""Starting the processes of a run on this machine, through Accelerate's own launcher."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence

import torch
from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from pics_cli.errors import PicsError

_FLAG = "--gpus"


def launch(processes: int, device: str, arguments: Sequence[str]) -> int:
    """Run `pics` with these arguments in several processes, and wait for them.

    Args:
        processes: how many; one for each GPU unless `device` is `cpu`.
        device: what `--device` says.
        arguments: of the command line, with --gpus.

    Returns:
        The exit code of the first process that failed, 0 where none did; 128 + n for signal n.

    Raises:
        PicsError: there are not so many GPUs, or the device is one of them.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise PicsError(f"{_FLAG} {processes} --device {device}: each process gets a GPU of its own", "leave out one")
    available = torch.cuda.device_count()
    if device != "cpu" and processes > available:
        raise PicsError(
            f"{_FLAG} {processes}: this machine has {available} CUDA devices",
            "name fewer, or take --device cpu to start so many processes on the CPU",
        )
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # each process reports its own error
    flags = ["--num_processes", str(processes), "--num_machines", "1", "--machine_rank", "0", "--gpu_ids", "all",
             "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
    kind = ["--multi_gpu"] if processes > 1 else ["--cpu"] if device == "cpu" else []
    command = [*flags, *kind, "--quiet", "--module", "pics_cli", *_without_gpus(arguments)]
    try:
        launch_command(launch_command_parser().parse_args(command))
    except ChildFailedError as error:
        code = int(error.get_first_failure()[1].exitcode)
        return 128 - code if code < 0 else code
    except SignalException as error:
        return 128 + int(error.sigval)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    finally:
        sys.stderr.flush()
    return 0


def _without_gpus(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments that each process gets."""
    remaining = iter(arguments)
    for argument in remaining:
        if argument == _FLAG:
            next(remaining, None)
        elif not argument.startswith(f"{_FLAG}="):
            yield argument
