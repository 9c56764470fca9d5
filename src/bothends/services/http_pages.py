"""`HttpPages`: a few pages over HTTP, for who looks after a server: scrapers, probes, a person with a browser.

As much of HTTP/1.1 (RFC 9112) as a server needs whose every answer is small and made on the spot:

1. One request a connection. The answer says "Connection: close", so a client that sends a thousand
   requests in one packet is answered once.
2. The request's head is bounded by HEAD bytes; what comes after it, a body or not, is never looked at.
3. GET and HEAD. A query is ignored, and so are header fields: nothing here depends on them.
4. A page is made by a function without arguments, which is called when it is asked for. If it raises, the
   answer is 500 and the conversation tells the error; the client hears nothing of it.

Not in the table of services: it is made with its pages, by whoever has something to show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from bothends.services.base import Conversation, Peer, Push, Service

# What servers commonly allow for a whole head (Apache: 8,190 bytes a line; nginx: 8 KiB a line).
MAX_HEAD: Final = 8 * 1024

_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/(\d)\.\d")
_ABSOLUTE_FORM: Final = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HttpPage:
    """What is shown: the bytes, their media type, and how it went."""

    body: bytes
    media_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


class HttpPages(Service):
    """Shows pages by their path ("/health")."""

    name = "pages"
    summary = "shows a few pages over HTTP"
    datagrams = False

    def __init__(self, pages: Mapping[str, Callable[[], HttpPage]]) -> None:
        self._pages = {path.encode("ascii"): make for path, make in pages.items()}

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _Request(self._pages)


class _Request(Conversation):
    """One request and its answer."""

    def __init__(self, pages: Mapping[bytes, Callable[[], HttpPage]]) -> None:
        self._pages = pages
        self._head = bytearray()

    def receive(self, data: bytes) -> bytes:
        head = self._head
        if not head:
            data = data.lstrip(b"\r\n")  # section 2.2: an empty line before a request is to be ignored
        head += data[: MAX_HEAD + 1 - len(head)]
        end = _END_OF_HEAD.search(head, 0, MAX_HEAD)
        if end is not None:
            return self._answer(bytes(head[: end.start()]))
        if len(head) > MAX_HEAD:
            return self._error_response(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a head has {MAX_HEAD} bytes here"
            )
        return b""

    def end(self) -> bytes:
        # Who asks for nothing, a probe that only connects, is told nothing.
        return self._error_response(HTTPStatus.BAD_REQUEST, "no whole request") if self._head else b""

    def _answer(self, head: bytes) -> bytes:
        request = _REQUEST_LINE.fullmatch(head.partition(b"\n")[0].rstrip(b"\r"))
        if request is None:
            return self._error_response(HTTPStatus.BAD_REQUEST, "the first line is no request of HTTP/1.1")
        method, target, version = request.groups()
        if version != b"1":
            return self._error_response(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here")
        if method not in (b"GET", b"HEAD"):
            return self._error_response(
                HTTPStatus.METHOD_NOT_ALLOWED, "there is only GET and HEAD", "Allow: GET, HEAD"
            )
        path = _ABSOLUTE_FORM.sub(b"", target, count=1).partition(b"?")[0] or b"/"
        return self._response(self._render(path), with_body=method == b"GET")

    def _render(self, path: bytes) -> HttpPage:
        make = self._pages.get(path)
        if make is None:
            there = ", ".join(known.decode() for known in self._pages)
            return _error_page(HTTPStatus.NOT_FOUND, f"there is {there}")
        try:
            return make()
        except Exception as error:
            self.failure = error
            return _error_page(
                HTTPStatus.INTERNAL_SERVER_ERROR, "the page could not be made; the log says why"
            )

    def _error_response(self, status: HTTPStatus, reason: str, *fields: str) -> bytes:
        return self._response(_error_page(status, reason), *fields)

    def _response(self, page: HttpPage, *fields: str, with_body: bool = True) -> bytes:
        self.done = True
        head = [
            f"HTTP/1.1 {page.status.value} {page.status.phrase}",
            f"Content-Type: {page.media_type}",
            f"Content-Length: {len(page.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
            *fields,
        ]
        return "".join(f"{line}\r\n" for line in [*head, ""]).encode("ascii") + page.body * with_body


def _error_page(status: HTTPStatus, reason: str) -> HttpPage:
    return HttpPage(f"{status.value} {status.phrase}: {reason}\n".encode(), status=status)
