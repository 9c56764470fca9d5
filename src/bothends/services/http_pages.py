"""`HttpPages`: serve a few pages over HTTP, for scrapers, probes and browsers.

The subset of HTTP/1.1 that a server needs if all responses are small and generated at once; `http1.py` reads
the requests:

1. One request per connection. The response has "Connection: close", so a client that pipelines a thousand
   requests gets one response.
2. A request's head has at most MAX_HEAD bytes; anything after it, such as a body, is not read.
3. GET and HEAD only. The query is ignored, because no page depends on it.
4. A page is rendered by a function without arguments, at each request. If it raises an exception, the
   response is status 500, without details, and the conversation reports the exception.
5. Pages of other sites get no response but an error: Origin is checked, and on loopback also Host. On other
   addresses scrapers use names that the server cannot know, and any client may read the pages.

It is not in the table of services, because it needs its pages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from bothends.http1 import BadRequest, HttpRequest, HttpResponse, RequestParser, check_browser
from bothends.services.base import Conversation, Peer, Push, Service

# A common limit (Apache: 8,190 bytes a line; nginx: 8 KiB a line).
MAX_HEAD: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class HttpPage:
    """A response: body, media type and status."""

    body: bytes
    media_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


class HttpPages(Service):
    """Serves pages by their path ("/health").

    `hosts`: names of this server on loopback, in addition to localhost and all addresses.
    """

    name = "pages"
    summary = "serves a few pages over HTTP"
    datagrams = False

    def __init__(self, pages: Mapping[str, Callable[[], HttpPage]], hosts: Collection[str] = ()) -> None:
        self._pages = dict(pages)
        self._hosts = frozenset(host.lower() for host in hosts)

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _Request(self._pages, self._hosts if peer.local.is_loopback else None)


class _Request(Conversation):
    """One request and its answer."""

    def __init__(self, pages: Mapping[str, Callable[[], HttpPage]], hosts: frozenset[str] | None) -> None:
        self._pages = pages
        self._hosts = hosts
        self._parser = RequestParser(max_head=MAX_HEAD, bodies=False)

    def receive(self, data: bytes) -> bytes:
        try:
            for request in self._parser.feed(data):
                return self._answer(request)
        except BadRequest as bad:
            return self._error_response(bad.status, bad.reason)
        return b""

    def end(self) -> bytes:
        # A probe that only connects gets no response.
        if self._parser.incomplete:
            return self._error_response(HTTPStatus.BAD_REQUEST, "incomplete request")
        return b""

    def _answer(self, request: HttpRequest) -> bytes:
        if request.method not in ("GET", "HEAD"):
            return self._error_response(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or HEAD", "Allow: GET, HEAD")
        check_browser(request, self._hosts)
        return self._response(self._render(request.path), with_body=request.method == "GET")

    def _render(self, path: str) -> HttpPage:
        render = self._pages.get(path)
        if render is None:
            return _error_page(HTTPStatus.NOT_FOUND, f"known paths are {', '.join(self._pages)}")
        try:
            return render()
        except Exception as error:
            self.failure = error
            return _error_page(HTTPStatus.INTERNAL_SERVER_ERROR, "cannot render the page; see the log")

    def _error_response(self, status: HTTPStatus, reason: str, *fields: str) -> bytes:
        return self._response(_error_page(status, reason), *fields)

    def _response(self, page: HttpPage, *fields: str, with_body: bool = True) -> bytes:
        self.done = True
        response = HttpResponse(page.status, page.body, page.media_type, fields)
        return response.encode(keep_alive=False, with_body=with_body)


def _error_page(status: HTTPStatus, reason: str) -> HttpPage:
    return HttpPage(f"{status.value} {status.phrase}: {reason}\n".encode(), status=status)
