"""`pics ui`: a page in the browser, to composite by looking."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
from pathlib import Path
from typing import Annotated

import typer

from pics_cli import console
from pics_cli.commands.choices import Dtype, Memory
from pics_cli.core.runtime.extras import require

logger = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ui(
    model: Annotated[str, typer.Option(metavar="pics|PATH|REPO", help="As that of pics infer.")] = "pics-mini",
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH[:WEIGHT]", help="Adapter of that model, as that of pics infer.  [repeatable]"),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 127.0.0.1: this machine alone reaches the page.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 7860,
    share: Annotated[
        bool,
        typer.Option("--share", help="Let other machines of the network in who know the token in the printed address."),
    ] = False,
    memory: Annotated[Memory, typer.Option(help="What lies on the GPU, as that of pics infer.")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="As that of pics infer.")] = "auto",
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")] = "auto",
) -> None:
    """Composite by looking: a page in the browser, served by this machine; pip install 'pics-cli[ui]'.

    Drop a background and objects, draw a box for each, and composite; photographs are cut out, and a brush corrects the
    cut. Every picture is what pics infer makes of the same files: the page gives them as a folder, with the command.
    The page asks no other machine for anything. Uploads lie in a private temporary folder and are deleted at the end.
    Several people are served one after the other. Ctrl-C ends it.
    """
    require("ui", "pics ui")
    from pics_cli.commands.results import Page
    from pics_cli.core.inference.plan import InferenceJob
    from pics_cli.core.inference.warm import WarmModel
    from pics_cli.core.model.adapters import parse_adapter
    from pics_cli.ui.server import Server
    from pics_cli.ui.serving import listen, serve

    if share and host in _LOOPBACK:
        host = "0.0.0.0"
    token = secrets.token_urlsafe(16) if share else None
    with listen(host, port) as listening:
        adapters = tuple(map(parse_adapter, lora or ()))
        job = InferenceJob(
            samples=(), output=Path(), model=model, adapters=adapters, memory=memory, dtype=dtype, device=device
        )
        server = Server(WarmModel(job), token)
        if host not in _LOOPBACK and token is None:
            logger.warning("--host %s: whoever reaches this machine may use the page; --share asks for a token", host)
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
        address = f"http://{f'[{shown}]' if ':' in shown else shown}:{listening.getsockname()[1]}/"
        address += "" if token is None else f"?token={token}"
        console.result(Page(address=address))
        console.finish()  # what starts it waits for the address
        console.show(address, only=True)
        logger.info("open this address in a browser; Ctrl-C ends it and deletes what was uploaded")
        with contextlib.suppress(KeyboardInterrupt), contextlib.closing(server):
            serve(server, listening)
