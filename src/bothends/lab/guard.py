"""Access to the lab: for the page that it has served itself, in the browser of its user.

1. The address has a token. The page that it shows sets a cookie, SameSite=Strict and HttpOnly; everything
   else needs the cookie.
2. Host must be an address or localhost, Origin and Sec-Fetch-Site the lab itself (`http1.check_browser`): no
   other site's page can use the lab through the user's browser, also not by changing its own name's address
   (DNS rebinding). A WebSocket needs an Origin, because browsers always send one there, and no cookie policy
   protects it in all of them.
3. The page gets a Content-Security-Policy with nothing but its own files.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bothends.http1 import BadRequest, HttpRequest, check_browser

_ONCE: Final = (b"host", b"origin", b"cookie")  # header fields that may stand once only
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Guard:
    """The ASGI application around the lab's own.

    Args:
        port: the port of the lab, which names its cookie: browsers share cookies between ports.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.token = secrets.token_urlsafe(24)
        self._secret = secrets.token_urlsafe(24)
        self._cookie = f"bothends-lab-{port}"
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            request = _parse(scope)
            check_browser(request, frozenset())
            if scope["type"] == "websocket" and "origin" not in request.fields:
                raise BadRequest(HTTPStatus.FORBIDDEN, "a WebSocket needs an Origin")
            is_new = self._check_access(scope, request)
        except BadRequest as bad:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})  # 403 before the handshake
            else:
                await _refusal(bad)(scope, receive, send)
            return

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._fields(request.authority, is_new=is_new)]
            await send(message)

        await self._app(scope, receive, send_with_fields)

    def _check_access(self, scope: Scope, request: HttpRequest) -> bool:
        """Return whether the request has the token, and no cookie yet. Raises BadRequest."""
        try:
            morsel = SimpleCookie(request.fields.get("cookie", "")).get(self._cookie)
        except CookieError:
            morsel = None
        if morsel is not None and hmac.compare_digest(morsel.value.encode(), self._secret.encode()):
            return False
        given = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=10).get("token", [""])[0]
        is_page = scope["type"] == "http" and scope["path"] == "/"
        if is_page and hmac.compare_digest(given.encode(), self.token.encode()):
            return True
        raise BadRequest(HTTPStatus.FORBIDDEN, "open the whole address that bothends lab has printed")

    def _fields(self, host: str, *, is_new: bool) -> Iterable[tuple[bytes, bytes]]:
        fields = {
            "content-security-policy": _POLICY.format(host=host),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "cache-control": "no-store",
        }
        if is_new:
            fields["set-cookie"] = f"{self._cookie}={self._secret}; HttpOnly; SameSite=Strict; Path=/"
        return [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]


def _parse(scope: Scope) -> HttpRequest:
    """Return the request as `check_browser` takes it. Raises BadRequest."""
    fields: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name in _ONCE and name.decode() in fields:
            raise BadRequest(HTTPStatus.BAD_REQUEST, f"more than one {name.decode()}")
        fields[name.decode("latin-1").lower()] = value.decode("latin-1")
    if not fields.get("host"):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "no Host")
    method = scope.get("method", "GET")
    return HttpRequest(method, scope["path"], fields["host"], fields, b"", keep_alive=True)


def _refusal(bad: BadRequest) -> PlainTextResponse:
    return PlainTextResponse(f"{bad.reason}\n", bad.status, {"x-content-type-options": "nosniff"})
