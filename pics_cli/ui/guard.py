"""Who may talk to the server, and what its pages may do: an ASGI layer around the application.

A page of another site that is open in the same browser must not reach it: not by its own address (`Origin`), and not by
a name that its owner lets point to this machine (`Host`; DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "pics_ui_token"
_MAX_PATH = 200  # letters; none of the page's own comes near
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Refuses requests of other sites, and without the token where there is one; sets headers of security.

    Args:
        app: answers all others.
        token: what the address must hold once (`/?token=…`), after which a cookie does; None: nobody is asked.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refuse(Headers(scope=scope), scope)
        await (self._app if answer is None else answer)(scope, receive, send_guarded)

    def _refuse(self, headers: Headers, scope: Scope) -> Response | None:
        host = headers.get("host", "")
        if len(scope["path"]) > _MAX_PATH:  # such as numbers that no int() takes
            return PlainTextResponse("error: no such address", 414)
        if self._token is None and not _is_own(host):
            return PlainTextResponse(f"error: {host[:80]} is not a name of this server", 421)
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return PlainTextResponse("error: requests of other sites are refused", 403)
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and scope["path"] != "/":
            return PlainTextResponse("error: requests of other sites are refused", 403)
        if self._token is None or self._is_token(_cookie(headers)):
            return None
        if scope["path"] == "/" and self._is_token(*parse_qs(scope["query_string"].decode("latin-1")).get("token", [])):
            response = RedirectResponse("/", 303)
            response.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return response
        return PlainTextResponse("error: the address lacks its token: open the one that pics ui printed", 403)

    def _is_token(self, *given: str) -> bool:
        return len(given) == 1 and hmac.compare_digest(given[0].encode(), (self._token or "").encode())


def _cookie(headers: Headers) -> str:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _is_own(host: str) -> bool:
    """Whether a `Host` is no name that somebody else may have let point here: an address, or this machine's name."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name in ("localhost", socket.gethostname().lower()):
            return True
        ipaddress.ip_address(name)
    except ValueError:  # no address, or no name at all, such as `[`
        return False
    return True
