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
    gpus_per_worker: float = 0,
    cpus_per_worker: float = 1,
) -> AbstractContextManager[Engine]:
    """Open the engine that --engine names, for the time of a `with` block; leaving by an exception stops its workers.

    Args:
        choice: `local`; `ray`, the cluster of this machine or one started here; or `ray://HOST:PORT` of a Ray client's
            server.
        workers: processes; None: a local one for each core, on a cluster as many as fit.
        counter: counts pictures as they are done.
        requirements: of the job; of no concern to a local engine.
        gpus_per_worker, cpus_per_worker: what a worker process holds of its machine, on a cluster.

    Raises:
        PicsError: no cluster there, or its machines lack what the job requires.
    """
    if choice == "local":
        return engines.local_executor(workers or engines.available_cores(), counter)
    from pics_cli.core.runtime.ray_engine import ray_engine  # loaded where it is asked for

    resources = {"num_cpus": cpus_per_worker, "num_gpus": gpus_per_worker}
    return ray_engine(choice, workers, counter or PictureCounter(), requirements or Requirements(), resources)
