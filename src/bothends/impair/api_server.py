"""HTTP server for the API: a listener and its connections, on the event loop of the proxies.

Idle peers cannot keep others out: a request must be complete after REQUEST_TIMEOUT seconds, and when a peer
or all peers have the maximum of connections, one is closed for a new one: one without a complete request
first, then the one whose last request, or last read of a response, is the oldest. Each turn of the loop
serves one request of a connection, and none before the last response is sent, so pipelined requests delay no
other connection.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import itertools
import math
import os
import socket
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from bothends.endpoints import Endpoint
from bothends.errors import UnsupportedCombination, UsageError
from bothends.http1 import BadRequest, HttpRequest, HttpResponse, RequestParser
from bothends.impair.api import Api, error_response
from bothends.osutil.event_loop import IN, OUT, EventLoop, Timer
from bothends.sockets import Listener, open_listeners
from bothends.sockets.host_addresses import is_local_host

_MAX_CONNECTIONS: Final = 128  # concurrent
_MAX_PER_PEER: Final = 96  # concurrent, from one address
_REQUEST_TIMEOUT: Final = 10.0  # seconds from the first byte of a request, or from accept(), to its last one
_IDLE_TIMEOUT: Final = 60.0  # seconds without a request, as in Toxiproxy
_ACCEPT_RETRY: Final = 0.1  # seconds until accept(2) is retried
_READ_SIZE: Final = 64 * 1024


class ApiServer:
    """Serves the API on an endpoint.

    Raises UnsupportedCombination if it is not a plain stream, UsageError if other hosts can reach it and the
    API has no token, and the exceptions of `open_listeners`.
    """

    def __init__(self, loop: EventLoop, api: Api, endpoint: Endpoint) -> None:
        if not endpoint.is_stream or endpoint.scheme == "tls" or endpoint.wrappers:
            raise UnsupportedCombination("the API", endpoint.label, "it needs a plain stream for HTTP")
        self.loop = loop
        self.api = api
        self.connections: dict[_ApiConnection, None] = {}  # in the order of accept()
        self.request_ids = _request_ids()
        self._retry_timer: Timer | None = None
        self._listeners = open_listeners(endpoint)
        if not api.access.token and not all(_is_local(each.endpoint) for each in self._listeners):
            for listener in self._listeners:
                listener.close()
            raise UsageError(f"other hosts can reach the API on {endpoint}: give --api-token-file FILE")
        for listener in self._listeners:
            listener.socket.setblocking(False)
            self._watch_listener(listener)

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint, with the real port."""
        return self._listeners[0].endpoint

    def close(self) -> None:
        """Close the listener and all connections."""
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        for listener in self._listeners:
            self.loop.unwatch(listener.fileno())
            listener.close()
        for connection in list(self.connections):
            connection.close()

    def _watch_listener(self, listener: Listener) -> None:
        self.loop.watch(listener.fileno(), IN, lambda _ready: self._accept(listener))

    def _accept(self, listener: Listener) -> None:
        try:
            sock, sockaddr = listener.socket.accept()
        except BlockingIOError:
            return
        except OSError:  # probably EMFILE: epoll would report the listener as ready on every iteration
            self.loop.unwatch(listener.fileno())
            self._retry_timer = self.loop.call_later(_ACCEPT_RETRY, lambda: self._watch_listener(listener))
            return
        host = sockaddr[0] if isinstance(sockaddr, tuple) else ""
        self._make_room(host)
        self.connections[_ApiConnection(self, sock, host)] = None

    def _make_room(self, host: str) -> None:
        """Close a connection if there are too many to accept one from `host`."""
        hosts = collections.Counter(each.host for each in self.connections)
        if hosts[host] < _MAX_PER_PEER:
            if len(self.connections) < _MAX_CONNECTIONS:
                return
            host = hosts.most_common(1)[0][0]
        candidates = (each for each in self.connections if each.host == host)
        min(candidates, key=lambda each: (each.has_sent_request, each.last_progress)).close()


def _is_local(endpoint: Endpoint) -> bool:
    """Whether only programs on this machine can connect to a bound endpoint."""
    return endpoint.is_unix or is_local_host(endpoint.host)


def _request_ids() -> Iterator[str]:
    """Yield ids in the form of Toxiproxy's: 20 characters, for the time, this process, and a counter.

    See the README of rs/xid: 4 bytes of the time in seconds, 5 of the process, 3 of the counter.
    """
    process = os.urandom(5)
    for number in itertools.count(int.from_bytes(os.urandom(3))):
        data = int(time.time()).to_bytes(4) + process + (number % 2**24).to_bytes(3)
        yield base64.b32hexencode(data).decode().rstrip("=").lower()


class _ApiConnection:
    """One connection to the API."""

    def __init__(self, server: ApiServer, sock: socket.socket, host: str) -> None:
        sock.setblocking(False)
        self.host = host
        self.has_sent_request = False
        self.last_progress = server.loop.now  # a complete request, or a part of a response was sent
        self._receiving = True  # a request is due, and its timeout runs
        self.wake_at = math.inf
        self._server = server
        self._loop = server.loop
        self._socket = sock
        self._parser = RequestParser()
        self._has_more = False  # the parser may have another complete request
        self._write_buffer = bytearray()
        self._close_after_write = False
        self._loop.watch(sock.fileno(), IN, self._on_ready)
        self._loop.schedule_wakeup(self, self._loop.now + _REQUEST_TIMEOUT)

    def on_timer(self, now: float) -> None:
        """Close the connection after the timeout of a request, or of the pause before it."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.wake_at = math.inf
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._server.connections.pop(self, None)

    def _on_ready(self, ready: int) -> None:
        try:
            if ready & ~OUT and not self._is_busy and not self._read():
                return
            self._write()
            if self._has_more and not self._write_buffer:
                self._respond(b"")
                self._write()
            if self._close_after_write and not self._write_buffer:
                self.close()
            else:
                self._loop.change(self._socket.fileno(), OUT if self._is_busy else IN)
        except OSError:
            self.close()

    @property
    def _is_busy(self) -> bool:
        """Whether a response or the next request waits; nothing is read meanwhile."""
        return bool(self._write_buffer) or self._has_more

    def _read(self) -> bool:
        try:
            data = self._socket.recv(_READ_SIZE)
        except BlockingIOError:
            return True
        if not data:
            self.close()
            return False
        self._respond(data)
        return True

    def _respond(self, data: bytes) -> None:
        """Respond to the first request that is complete with `data`, if there is one."""
        try:
            request = next(self._parser.feed(data), None)
        except BadRequest as bad:
            self._has_more = False
            self._close_after_write = True
            self._write_buffer += self._encode(error_response(bad.status, bad.reason), keep_alive=False)
            return
        self._has_more = request is not None and request.keep_alive
        if request is not None:
            self.has_sent_request = True
            self.last_progress = self._loop.now
            self._receiving = False
            self._set_timeout(_IDLE_TIMEOUT)
            self._close_after_write = not request.keep_alive
            self._write_buffer += self._encode(
                self._handle(request), keep_alive=request.keep_alive, with_body=request.method != "HEAD"
            )
        elif self._parser.incomplete and not self._receiving:
            self._receiving = True
            self._set_timeout(_REQUEST_TIMEOUT)
        self._write_buffer += self._parser.continue_response
        self._parser.continue_response = b""

    def _set_timeout(self, seconds: float) -> None:
        self.wake_at = math.inf
        self._loop.schedule_wakeup(self, self._loop.now + seconds)

    def _encode(self, response: HttpResponse, *, keep_alive: bool, with_body: bool = True) -> bytes:
        """Return a response as bytes, with the id of its request."""
        request_id = f"X-Toxiproxy-Request-Id: {next(self._server.request_ids)}"
        response = dataclasses.replace(response, fields=(*response.fields, request_id))
        return response.encode(keep_alive=keep_alive, with_body=with_body)

    def _handle(self, request: HttpRequest) -> HttpResponse:
        try:
            return self._server.api.handle(request)
        except Exception as error:  # a bug in the API must not stop the proxies
            text = f"internal error: {type(error).__name__}: {error}"
            return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, text)

    def _write(self) -> None:
        if self._write_buffer:
            try:
                del self._write_buffer[: self._socket.send(self._write_buffer)]
                self.last_progress = self._loop.now
            except BlockingIOError:
                pass
