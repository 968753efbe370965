"""--engine of commands whose workers hold a model: on a Ray cluster one for each GPU, or for each core."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pics_cli.core.runtime.ranks import launched
from pics_cli.errors import PicsError

if TYPE_CHECKING:
    from pics_cli.core.runtime.worker_group import OpenEngine

ENGINE_HELP = "local, ray, or ray://HOST:PORT: by a cluster's GPUs, or else its cores."
_DEVICES = ("auto", "cpu", "cuda")


def engine_opener(engine: str, device: str, cores: int | None = None, cores_per_gpu: int = 1) -> OpenEngine | None:
    """What opens the engine that --engine names; None: the processes of this run do the work.

    Args:
        engine: value of --engine.
        device: value of --device.
        cores: that a worker holds; None: one, or beside a GPU `cores_per_gpu`.
        cores_per_gpu: see there.

    Raises:
        PicsError: no engine; or it does not go with a launcher or a device.
    """
    from pics_cli.core.runtime.open_engine import check_engine, open_engine

    check_engine(engine)
    if engine == "local":
        return None
    if launched():
        raise PicsError(
            f"--engine {engine}: a launcher started several processes, of which each would ask for the whole cluster",
            "leave out the launcher: the engine uses every GPU of the cluster",
        )
    if device not in _DEVICES:
        raise PicsError(
            f"--engine {engine} --device {device}: each worker gets a GPU of its own",
            f"leave out --device, or take one of {', '.join(_DEVICES)}",
        )
    return partial(
        open_engine, engine, None, None, device=device, cpus_per_worker=cores or 1, cpus_per_gpu=cores or cores_per_gpu
    )
