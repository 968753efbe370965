"""A server at work: its socket, and uvicorn."""

from __future__ import annotations

import errno
import socket

import uvicorn

from pics_cli.errors import PicsError, reason_of
from pics_cli.ui.server import Server


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        PicsError: it cannot.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        hint = "--port 0 takes any that is free" if getattr(error, "errno", None) == errno.EADDRINUSE else None
        raise PicsError(f"--host {host} --port {port}: cannot listen: {reason_of(error)}", hint) from None


def serve(server: Server, listening: socket.socket) -> None:
    """Answer until a signal comes, which is raised again when all is deleted."""
    config = uvicorn.Config(
        server.app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=2
    )
    uvicorn.Server(config).run(sockets=[listening])
