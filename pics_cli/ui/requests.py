"""What requests hold, and files as answers."""

from __future__ import annotations

from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from pics_cli.core.runtime.files import load_json
from pics_cli.errors import PicsError
from pics_cli.ui.drawing import Drawing

MAX_UPLOAD = 100_000_000  # bytes of one picture
_MAX_DRAWING = 100_000  # bytes of what the page sends of boxes and settings
_LABEL = 80  # letters of a file's name that are shown


class NotThere(Exception):
    """What was asked for is not there, or not yet."""


def picture_response(path: Path | None) -> Response:
    """A file of the session as an answer.

    Raises:
        NotThere: there is none.
    """
    if path is None or not path.is_file():
        raise NotThere("error: no such picture")
    return FileResponse(path)


async def read_upload(request: Request) -> tuple[bytes, str]:
    """A picture's bytes, and what the user calls it: text to show, never a path.

    Raises:
        PicsError: more than `MAX_UPLOAD` bytes.
    """
    label = " ".join(request.query_params.get("name", "").split())[-_LABEL:] or "picture"
    return await _read_body(request, MAX_UPLOAD, label), label


async def _read_body(request: Request, limit: int, label: str) -> bytes:
    too_large = PicsError(
        f"{label}: more than {limit / 1e6:,g} MB, which the page does not take", "pics infer takes larger files"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    data = bytearray()
    async for block in request.stream():
        data += block
        if len(data) > limit:
            raise too_large
    return bytes(data)


async def read_drawing(request: Request) -> Drawing:
    """What was drawn, as JSON.

    Raises:
        PicsError: it is none.
    """
    data = await _read_body(request, _MAX_DRAWING, "drawing")
    try:
        return msgspec.convert(load_json(data), Drawing, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise PicsError(f"drawing: {error}") from None
