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
from collections.abc import Collection, Iterable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Final, Protocol
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bothends.http1 import BadRequest, HttpRequest, check_browser

_ONCE: Final = (b"host", b"origin", b"cookie")  # header fields that may stand once only
_PAGES: Final = ("/", "/class")  # where an address with a token leads
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self' {scheme}://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Keys(Protocol):
    """The tokens of the addresses, and the secrets of the cookies."""

    max_age: int | None
    """Seconds that a cookie is kept; None: until the browser ends."""

    def visitor(self, secret: str) -> object | None:
        """Return the visitor with a secret, or None."""

    def admit(self, token: str, visitor: object | None) -> str | None:
        """Return a new secret for a browser that has opened an address; None if the one it has will do.

        Raises:
            PermissionError: it is not admitted.
        """


class OwnKeys:
    """The keys of a lab for one user: one token, one secret."""

    max_age: int | None = None

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(24)
        self._secret = secrets.token_urlsafe(24)

    def visitor(self, secret: str) -> object | None:
        """Return True for the secret."""
        return True if hmac.compare_digest(secret.encode(), self._secret.encode()) else None

    def admit(self, token: str, visitor: object | None) -> str | None:
        """Return the secret for the token. Raises PermissionError for another one."""
        if visitor is not None:
            return None
        if hmac.compare_digest(token.encode(), self.token.encode()):
            return self._secret
        raise PermissionError("wrong token")


class Guard:
    """The ASGI application around the lab's own. It passes the visitor on in `scope["visitor"]`.

    Args:
        port: the port of the lab, which names its cookie: browsers share cookies between ports.
        names: the names under which it is reached, in lower case, besides addresses and localhost.
        secure: whether it is served over TLS only.
    """

    def __init__(
        self,
        app: ASGIApp,
        port: int,
        keys: Keys,
        names: Collection[str] = frozenset(),
        *,
        secure: bool = False,
    ) -> None:
        self._keys = keys
        self._names = names
        self._secure = secure
        self._cookie = f"bothends-lab-{port}"
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            request = _parse(scope)
            check_browser(request, self._names)
            if scope["type"] == "websocket" and "origin" not in request.fields:
                raise BadRequest(HTTPStatus.FORBIDDEN, "a WebSocket needs an Origin")
            scope["visitor"], secret = self._check_access(scope, request)
        except BadRequest as bad:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})  # 403 before the handshake
            else:
                await _refusal(bad)(scope, receive, send)
            return

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._fields(request.authority, secret)]
            await send(message)

        await self._app(scope, receive, send_with_fields)

    def _check_access(self, scope: Scope, request: HttpRequest) -> tuple[object, str]:
        """Return the visitor, and a new secret or "". Raises BadRequest."""
        try:
            morsel = SimpleCookie(request.fields.get("cookie", "")).get(self._cookie)
        except CookieError:
            morsel = None
        visitor = self._keys.visitor(morsel.value) if morsel is not None else None
        given = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=10).get("token", [""])[0]
        is_page = scope["type"] == "http" and scope["path"] in _PAGES
        try:
            secret = self._keys.admit(given, visitor) if is_page and given else None
        except PermissionError:
            secret = None
        if secret is not None:
            visitor = self._keys.visitor(secret)
        if visitor is None:
            raise BadRequest(HTTPStatus.FORBIDDEN, "open the whole address that bothends lab has printed")
        return visitor, secret or ""

    def _fields(self, host: str, secret: str) -> Iterable[tuple[bytes, bytes]]:
        scheme = "wss" if self._secure else "ws"
        fields = {
            "content-security-policy": _POLICY.format(scheme=scheme, host=host),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "cache-control": "no-store",
        }
        if secret:
            age = f"; Max-Age={self._keys.max_age}" if self._keys.max_age is not None else ""
            secure = "; Secure" if self._secure else ""
            fields["set-cookie"] = f"{self._cookie}={secret}; HttpOnly; SameSite=Strict; Path=/{age}{secure}"
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
