"""Files of http(s) servers as fsspec has those of other stores, by the client of `http_client`; nothing is written."""

from __future__ import annotations

import contextlib
import urllib.error
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from pics_cli.core.runtime.http_client import MISSING_CODES, RefusedError, open_url, read_limited

_NO_RANGE, _PARTIAL = 416, 206
_MOST = 100e9


class HttpFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """What `RemotePath` asks of a store, of files whose names are their URLs."""

    protocol = ("http", "https")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        with _opened(path, "HEAD") as response:
            headers = response.headers
        length = headers.get("Content-Length", "")
        found = {"name": path, "type": "file", "size": int(length) if length.isdigit() else len(self.cat_file(path))}
        if tag := headers.get("ETag"):
            found["etag"] = tag
        with contextlib.suppress(TypeError, ValueError):
            found["mtime"] = parsedate_to_datetime(headers.get("Last-Modified", "")).timestamp()
        return found

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        first, last = start or 0, "" if end is None else end - 1
        try:
            with _opened(path, "GET", f"bytes={first}-{last}" if first or end is not None else None) as response:
                data = b"".join(read_limited(response, _MOST))
                return data if response.status == _PARTIAL else data[first:end]
        except urllib.error.HTTPError as error:
            if error.code == _NO_RANGE:  # the file ends before
                return b""
            raise

    def get_file(self, path: str, target: str, **_: Any) -> None:
        with _opened(path, "GET") as response, Path(target).open("wb") as file:
            for block in read_limited(response, _MOST):
                file.write(block)

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        raise NotImplementedError("folders of http(s) servers cannot be listed")

    def put_file(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("nothing is written by http(s)")

    pipe_file = rm_file = rm = put_file


@contextlib.contextmanager
def _opened(url: str, method: str, byte_range: str | None = None) -> Iterator[HTTPResponse]:
    try:
        with open_url(url, method, byte_range) as response:
            yield response
    except urllib.error.HTTPError as error:
        if error.code in MISSING_CODES:
            raise FileNotFoundError(2, "No such file or directory", url) from None
        if 400 <= error.code < 500 and error.code not in (408, 429, _NO_RANGE):
            raise RefusedError(f"{error.code} {error.reason}".lower()) from None
        raise
