"""Where the API is reached: a listener and its visitors, on the proxy's own loop."""

from __future__ import annotations

import math
import socket
from http import HTTPStatus
from typing import Final

from bothends.endpoints import Endpoint
from bothends.errors import CannotCarry
from bothends.impair.api import Api, error_answer
from bothends.impair.http import Answer, BadRequest, Reader, Request
from bothends.osutil.event_loop import IN, OUT, Loop, Timer
from bothends.sockets import Listener, open_listeners

_MOST: Final = 128  # visitors at once; those beyond are closed at once
_IDLE: Final = 60.0  # seconds without a request, as in Toxiproxy
_PAUSE: Final = 0.1  # seconds until accept is tried again
_CHUNK: Final = 64 * 1024
_UNSENT: Final = 8 * 1024 * 1024  # bytes that a visitor may leave unread: more than any list of proxies


class Control:
    """The API on an endpoint. Raises what binding raises."""

    def __init__(self, loop: Loop, api: Api, endpoint: Endpoint) -> None:
        if not endpoint.is_stream or endpoint.scheme == "tls" or endpoint.wrappers:
            raise CannotCarry("the API", endpoint.label, "it speaks HTTP over a plain stream")
        self.loop = loop
        self.api = api
        self.visitors: set[_Visitor] = set()
        self._pause: Timer | None = None
        self._listeners = open_listeners(endpoint)
        for listener in self._listeners:
            listener.socket.setblocking(False)
            self._welcome(listener)

    @property
    def endpoint(self) -> Endpoint:
        """Where it is, with the real port."""
        return self._listeners[0].endpoint

    def close(self) -> None:
        """Leave."""
        if self._pause is not None:
            self._pause.cancel()
        for listener in self._listeners:
            self.loop.forget(listener.fileno())
            listener.close()
        for visitor in list(self.visitors):
            visitor.leave()

    def _welcome(self, listener: Listener) -> None:
        self.loop.watch(listener.fileno(), IN, lambda _ready: self._accept(listener))

    def _accept(self, listener: Listener) -> None:
        try:
            sock, _ = listener.socket.accept()
        except BlockingIOError:
            return
        except OSError:  # most likely no descriptor is left: accept would be reported as possible for ever
            self.loop.forget(listener.fileno())
            self._pause = self.loop.later(_PAUSE, lambda: self._welcome(listener))
            return
        if len(self.visitors) >= _MOST:
            sock.close()
        else:
            self.visitors.add(_Visitor(self, sock))


class _Visitor:
    """One connection to the API."""

    def __init__(self, control: Control, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.wake_at = math.inf
        self._control = control
        self._loop = control.loop
        self._socket = sock
        self._reader = Reader()
        self._unsent = bytearray()
        self._is_last = False
        self._loop.watch(sock.fileno(), IN, self._on_ready)
        self._loop.wake(self, self._loop.now + _IDLE)

    def on_timer(self, now: float) -> None:
        """It has been silent for long enough."""
        self.leave()

    def leave(self) -> None:
        """Close it."""
        self.wake_at = math.inf
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._control.visitors.discard(self)

    def _on_ready(self, ready: int) -> None:
        try:
            if ready & ~OUT and not self._read():
                return
            self._write()
        except OSError:
            self.leave()

    def _read(self) -> bool:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return True
        if not data or self._is_last:
            if not data and not self._unsent:
                self.leave()
                return False
            return True
        self.wake_at = math.inf
        self._loop.wake(self, self._loop.now + _IDLE)
        try:
            for request in self._reader.feed(data):
                self._say(self._answer(request), request)
                if self._is_last:
                    break
        except BadRequest as bad:
            self._is_last = True
            self._unsent += error_answer(bad.status, bad.reason).encode(keeps_alive=False)
        self._unsent += self._reader.says_continue
        self._reader.says_continue = b""
        return True

    def _answer(self, request: Request) -> Answer:
        try:
            return self._control.api.answer(request)
        except Exception as error:  # a mistake of ours must not end the proxies
            text = f"a mistake in bothends itself: {type(error).__name__}: {error}"
            return error_answer(HTTPStatus.INTERNAL_SERVER_ERROR, text)

    def _say(self, answer: Answer, request: Request) -> None:
        self._is_last = not request.keeps_alive
        self._unsent += answer.encode(keeps_alive=request.keeps_alive, whole=request.method != "HEAD")

    def _write(self) -> None:
        if self._unsent:
            try:
                del self._unsent[: self._socket.send(self._unsent)]
            except BlockingIOError:
                pass
        if len(self._unsent) > _UNSENT or (self._is_last and not self._unsent):
            self.leave()
        else:
            self._loop.change(self._socket.fileno(), IN | OUT if self._unsent else IN)
