"""The choice of an engine, for every command that runs many blocks."""

from __future__ import annotations

from contextlib import AbstractContextManager

from pics_cli.core.runtime import engines
from pics_cli.core.runtime.engines import Engine, PictureCounter
from pics_cli.core.runtime.requirements import Requirements
from pics_cli.errors import PicsError


def check_engine(choice: str) -> None:
    """Refuse a value of --engine that names none.

    Raises:
        PicsError: it does.
    """
    if choice not in ("local", "ray") and not choice.startswith("ray://"):
        raise PicsError(f"--engine: got {choice!r}, expected local, ray or ray://HOST:PORT")


def open_engine(
    choice: str,
    workers: int | None,
    counter: PictureCounter | None = None,
    requirements: Requirements | None = None,
    *,
    device: str = "cpu",
    cpus_per_worker: int = 1,
    cpus_per_gpu: int = 1,
) -> AbstractContextManager[Engine]:
    """Open the engine that --engine names, for the time of a `with` block; leaving by an exception stops its workers.

    Args:
        choice: `local`; `ray`, the cluster of this machine or one started here; or `ray://HOST:PORT` of a Ray client's
            server.
        workers: processes; None: a local one for each core, on a cluster as many as fit.
        counter: counts pictures as they are done.
        requirements: of the job; of no concern to a local engine.
        device: what workers of a cluster compute on: `cpu`; `cuda`: each holds a GPU; `auto`: where there are some.
        cpus_per_worker, cpus_per_gpu: cores that one holds, without and with a GPU.

    Raises:
        PicsError: no cluster there, or its machines lack what the job requires.
    """
    if choice == "local":
        return engines.local_executor(workers or engines.available_cores(), counter)
    from pics_cli.core.runtime.ray_engine import ray_engine  # loaded where it is asked for

    without, with_gpu = {"num_cpus": cpus_per_worker}, {"num_cpus": cpus_per_gpu, "num_gpus": 1}
    resources = with_gpu if device == "cuda" else without
    where_gpus = with_gpu if device == "auto" else None
    counter, requirements = counter or PictureCounter(), requirements or Requirements()
    return ray_engine(choice, workers, counter, requirements, resources, where_gpus)
