"""`Pages`: a few pages over HTTP, for who looks after a server: scrapers, probes, a person with a browser.

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

from bothends.services.base import Conversation, Peer, Post, Service

# What servers commonly allow for a whole head (Apache: 8,190 bytes a line; nginx: 8 KiB a line).
HEAD: Final = 8 * 1024

_END: Final = re.compile(rb"\r?\n\r?\n")
_REQUEST: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/(\d)\.\d")
_ABSOLUTE: Final = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown: the bytes, their media type, and how it went."""

    body: bytes
    media_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


class Pages(Service):
    """Shows pages by their path ("/health")."""

    name = "pages"
    summary = "shows a few pages over HTTP"
    datagrams = False

    def __init__(self, pages: Mapping[str, Callable[[], Page]]) -> None:
        self._pages = {path.encode("ascii"): make for path, make in pages.items()}

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Visit(self._pages)


class _Visit(Conversation):
    """One request and its answer."""

    def __init__(self, pages: Mapping[bytes, Callable[[], Page]]) -> None:
        self._pages = pages
        self._head = bytearray()

    def receive(self, data: bytes) -> bytes:
        head = self._head
        if not head:
            data = data.lstrip(b"\r\n")  # section 2.2: an empty line before a request is to be ignored
        head += data[: HEAD + 1 - len(head)]
        end = _END.search(head, 0, HEAD)
        if end is not None:
            return self._answer(bytes(head[: end.start()]))
        if len(head) > HEAD:
            return self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a head has {HEAD} bytes here")
        return b""

    def end(self) -> bytes:
        # Who asks for nothing, a probe that only connects, is told nothing.
        return self._refuse(HTTPStatus.BAD_REQUEST, "no whole request") if self._head else b""

    def _answer(self, head: bytes) -> bytes:
        request = _REQUEST.fullmatch(head.partition(b"\n")[0].rstrip(b"\r"))
        if request is None:
            return self._refuse(HTTPStatus.BAD_REQUEST, "the first line is no request of HTTP/1.1")
        method, target, version = request.groups()
        if version != b"1":
            return self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here")
        if method not in (b"GET", b"HEAD"):
            return self._refuse(
                HTTPStatus.METHOD_NOT_ALLOWED, "there is only GET and HEAD", "Allow: GET, HEAD"
            )
        path = _ABSOLUTE.sub(b"", target, count=1).partition(b"?")[0] or b"/"
        return self._said(self._page(path), whole=method == b"GET")

    def _page(self, path: bytes) -> Page:
        make = self._pages.get(path)
        if make is None:
            there = ", ".join(known.decode() for known in self._pages)
            return _plain(HTTPStatus.NOT_FOUND, f"there is {there}")
        try:
            return make()
        except Exception as error:
            self.failure = error
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR, "the page could not be made; the log says why")

    def _refuse(self, status: HTTPStatus, why: str, *fields: str) -> bytes:
        return self._said(_plain(status, why), *fields)

    def _said(self, page: Page, *fields: str, whole: bool = True) -> bytes:
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
        return "".join(f"{line}\r\n" for line in [*head, ""]).encode("ascii") + page.body * whole


def _plain(status: HTTPStatus, why: str) -> Page:
    return Page(f"{status.value} {status.phrase}: {why}\n".encode(), status=status)
