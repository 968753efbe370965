"""The connection of a command to a Ray cluster: found, given or started here; one that cannot be reached is told."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

from pics_cli.core.runtime.engines import available_cores
from pics_cli.core.runtime.extras import require
from pics_cli.errors import PicsError, reason_of

logger = logging.getLogger(__name__)

_SECONDS = 10.0
_HINT = "is Ray running there (`ray start --head`), and may this machine reach it?"


@contextlib.contextmanager
def connect(choice: str, workers: int | None) -> Iterator[bool]:
    """Be connected to a cluster for a `with` block, unless this process is already, and stays so.

    Args:
        choice: `ray://HOST:PORT`, or `ray`: the cluster that RAY_ADDRESS names or that this machine belongs to, else
            one that is started here and ends with the block.
        workers: cores of a cluster that is started here; None: all.

    Yields:
        Whether other machines may join the cluster.

    Raises:
        PicsError: Ray is not installed, does not answer, or is of another version there.
    """
    require("ray", "--engine ray")
    import ray

    if ray.is_initialized():
        yield True
        return
    address = choice if choice.startswith("ray://") else os.environ.get("RAY_ADDRESS")
    if address:
        _check_answer(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        joinable = _init(ray, address, workers)
    except Exception as error:
        ray.shutdown()
        what = " ".join(str(error).split())
        raise PicsError(f"--engine {address or choice}: no connection: {what}", _HINT) from None
    finally:
        for number, handler in handlers.items():  # Ray's own handler would end the process in the middle of a file
            signal.signal(number, handler)
    try:
        yield joinable
    finally:
        ray.shutdown()


def _init(ray: Any, address: str | None, workers: int | None) -> bool:
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    with contextlib.suppress(ConnectionError) if address is None else contextlib.nullcontext():
        ray.init(address or "auto", **quiet)
        return True
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to others without being asked
    cores = workers or available_cores()
    logger.info("no Ray cluster found: starting one on this machine, with %d cores", cores)
    ray.init("local", num_cpus=cores, include_dashboard=False, **quiet)
    return False


def _check_answer(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rstrip("/").rpartition(":")
    if not host or not port.isdecimal():
        if address.startswith("ray://"):
            raise PicsError(
                f"--engine {address}: expected ray://HOST:PORT", "the port of a Ray client's server is 10001"
            )
        return  # a word such as `auto`
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()
    except (OSError, OverflowError) as error:
        raise PicsError(f"--engine {address}: does not answer: {reason_of(error)}", _HINT) from None
    if address.startswith("ray://"):
        _ping(address, f"{host}:{port}")


def _ping(address: str, server: str) -> None:
    """The first call of Ray's own client, which would repeat it for half a minute."""
    import grpc
    from ray.core.generated import ray_client_pb2, ray_client_pb2_grpc

    request = ray_client_pb2.ClusterInfoRequest(type=ray_client_pb2.ClusterInfoType.PING)
    try:
        with grpc.insecure_channel(server) as channel:
            ray_client_pb2_grpc.RayletDriverStub(channel).ClusterInfo(request, timeout=_SECONDS)
    except grpc.RpcError as error:
        code = error.code()
        if code == grpc.StatusCode.UNAUTHENTICATED:  # it is one; Ray's own client has the token
            return
        raise PicsError(
            f"--engine {address}: answers, but not as a server of Ray's clients: {code.name}",
            "its port is 10001, unless `ray start --head` was given another --ray-client-server-port",
        ) from None
