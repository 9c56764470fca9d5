"""`HttpPages`: serve a few pages over HTTP, for scrapers, probes and browsers.

The subset of HTTP/1.1 (RFC 9112) that a server needs if all responses are small and generated at once:

1. One request per connection. The response has "Connection: close", so a client that pipelines a thousand
   requests gets one response.
2. A request's head has at most MAX_HEAD bytes; anything after it, such as a body, is not read.
3. GET and HEAD only. The query and the header fields are ignored, because no page depends on them.
4. A page is rendered by a function without arguments, at each request. If it raises an exception, the
   response is status 500, without details, and the conversation reports the exception.

It is not in the table of services, because it needs its pages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from bothends.services.base import Conversation, Peer, Push, Service

# A common limit (Apache: 8,190 bytes a line; nginx: 8 KiB a line).
MAX_HEAD: Final = 8 * 1024

_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/(\d)\.\d")
_ABSOLUTE_FORM: Final = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HttpPage:
    """A response: body, media type and status."""

    body: bytes
    media_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


class HttpPages(Service):
    """Serves pages by their path ("/health")."""

    name = "pages"
    summary = "serves a few pages over HTTP"
    datagrams = False

    def __init__(self, pages: Mapping[str, Callable[[], HttpPage]]) -> None:
        self._pages = {path.encode("ascii"): render for path, render in pages.items()}

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
            data = data.lstrip(b"\r\n")  # section 2.2: ignore an empty line before a request
        head += data[: MAX_HEAD + 1 - len(head)]
        end = _END_OF_HEAD.search(head, 0, MAX_HEAD)
        if end is not None:
            return self._answer(bytes(head[: end.start()]))
        if len(head) > MAX_HEAD:
            return self._error_response(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the limit is {MAX_HEAD} bytes"
            )
        return b""

    def end(self) -> bytes:
        # A probe that only connects gets no response.
        return self._error_response(HTTPStatus.BAD_REQUEST, "incomplete request") if self._head else b""

    def _answer(self, head: bytes) -> bytes:
        request = _REQUEST_LINE.fullmatch(head.partition(b"\n")[0].rstrip(b"\r"))
        if request is None:
            return self._error_response(
                HTTPStatus.BAD_REQUEST, "the first line is not a request line of HTTP/1.1"
            )
        method, target, version = request.groups()
        if version != b"1":
            return self._error_response(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "use HTTP/1.1")
        if method not in (b"GET", b"HEAD"):
            return self._error_response(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or HEAD", "Allow: GET, HEAD")
        path = _ABSOLUTE_FORM.sub(b"", target, count=1).partition(b"?")[0] or b"/"
        return self._response(self._render(path), with_body=method == b"GET")

    def _render(self, path: bytes) -> HttpPage:
        render = self._pages.get(path)
        if render is None:
            known_paths = ", ".join(known.decode() for known in self._pages)
            return _error_page(HTTPStatus.NOT_FOUND, f"known paths are {known_paths}")
        try:
            return render()
        except Exception as error:
            self.failure = error
            return _error_page(HTTPStatus.INTERNAL_SERVER_ERROR, "cannot render the page; see the log")

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
