"""Requests by http(s): answers of a length that was said, and redirects to nowhere that only this machine can reach."""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

# Seconds without a byte.
TIMEOUT = 60.0
BLOCK = 1 << 20
# 403 is what object stores answer for names that do not exist.
MISSING_CODES = (403, 404, 410)
ANY_REDIRECT = "PICS_REDIRECTS"


class TransferError(Exception):
    """A try that failed, and may succeed the next time."""


class RefusedError(Exception):
    """An answer that is not taken, and that another try will not change."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to the same host or a public one, by http(s): no other's word opens what only this machine,
    or its network, can reach."""

    def redirect_request(self, request: Any, file: Any, code: int, reason: str, headers: Any, url: str) -> Any:
        old, new = urllib.parse.urlsplit(request.full_url), urllib.parse.urlsplit(url)
        if new.scheme != old.scheme and (old.scheme, new.scheme) != ("http", "https"):
            raise RefusedError(f"the server redirects from {old.scheme} to {new.scheme}: {url[:200]}")
        anywhere = os.environ.get(ANY_REDIRECT, "") == "any"
        if new.hostname != old.hostname and not anywhere and not _is_public(new.hostname or ""):
            raise RefusedError(
                f"the server redirects to {new.hostname}, which is not public ({ANY_REDIRECT}=any follows)"
            )
        return super().redirect_request(request, file, code, reason, headers, url)


def _is_public(host: str) -> bool:
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):  # cannot be reached either, but by a proxy, which looks for itself
        return "." in host and not host.replace(".", "").isdigit()
    return all(ipaddress.ip_address(address.partition("%")[0]).is_global for address in addresses)


def open_url(url: str, method: str = "GET", byte_range: str | None = None) -> http.client.HTTPResponse:
    """The answer to a request.

    Args:
        url: http(s).
        method: of the request.
        byte_range: as the header `Range` has it; None: the whole file.

    Raises:
        OSError: no answer, or a code of failure (`urllib.error.HTTPError`).
        RefusedError: the server redirects to where nothing is fetched from.
    """
    headers = {"User-Agent": "pics", **({"Range": byte_range} if byte_range else {})}
    request = urllib.request.Request(url, headers=headers, method=method)
    response: http.client.HTTPResponse = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
    return response


def read_limited(response: http.client.HTTPResponse, most: float) -> Iterator[bytes]:
    """The body in blocks; its length must be the header's, and at most `most`.

    Raises:
        RefusedError: it is longer, or the header is none.
        TransferError: it ends before.
    """
    header, received = response.headers.get("Content-Length"), 0
    length = int(header) if header is not None and header.isascii() and header.isdigit() else None
    if header is not None and length is None:
        raise RefusedError(f"the server sends Content-Length: {header[:40]!r}")
    while block := response.read(BLOCK):
        received += len(block)
        if received > most:
            raise RefusedError(f"the server sends more than {most / 1e6:,.0f} MB")
        yield block
    if length is not None and received != length:
        raise TransferError(f"the connection ended after {received:,} of {length:,} bytes")
