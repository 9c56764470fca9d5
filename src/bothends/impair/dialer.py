"""Connect to the upstream without blocking the event loop.

A numeric address is connected to by the loop itself. A host name is resolved and connected to (RFC 8305) in a
thread, because getaddrinfo(3) blocks. A UNIX socket is connected to in a thread as well: with a full accept
queue a non-blocking connect(2) fails with EAGAIN, and epoll does not report when there is room.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Final

from bothends.endpoints import Endpoint
from bothends.errors import BothendsError, SystemCallFailed, TimeoutExpired
from bothends.osutil.event_loop import OUT, EventLoop, Timer
from bothends.sockets import open_connection
from bothends.sockets.connecting import is_self_connected
from bothends.sockets.options import apply_options
from bothends.sockets.resolve import SOCKET_TYPES, resolve
from bothends.sockets.socket_errors import call_error

CONNECT_TIMEOUT: Final = 10.0  # seconds; the client of the proxy waits as long without data


class Dialer:
    """A connection attempt.

    `on_done` is called once, from the loop and never from the constructor: with a non-blocking socket and
    None, or with None and an error.
    """

    def __init__(
        self,
        loop: EventLoop,
        endpoint: Endpoint,
        on_done: Callable[[socket.socket | None, BothendsError | None], object],
    ) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._on_done = on_done
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None
        self._is_done = False
        if _is_numeric(endpoint):
            self._start_connect()
        else:
            threading.Thread(target=self._connect_in_thread, name="bothends-dial", daemon=True).start()

    def cancel(self) -> None:
        """Abandon the attempt and close its socket. `on_done` is not called any more."""
        self._is_done = True
        self._release()
        if self._sock is not None:
            self._sock.close()

    def _start_connect(self) -> None:
        endpoint = self._endpoint
        target = resolve(endpoint)[0]  # a numeric address: no look-up
        kind, protocol = SOCKET_TYPES[endpoint.scheme]
        try:
            sock = self._sock = socket.socket(target.family, kind, protocol)
            apply_options(sock, endpoint, listening=False)
            sock.setblocking(False)
            status = sock.connect_ex(target.sockaddr)
        except OSError as error:
            self._loop.post(functools.partial(self._fail, call_error("connect to", endpoint, error)))
            return
        except BothendsError as error:
            self._loop.post(functools.partial(self._fail, error))
            return
        if status == errno.EINPROGRESS:
            self._timer = self._loop.call_later(CONNECT_TIMEOUT, self._on_timeout)
            self._loop.watch(sock.fileno(), OUT, self._on_ready)
        else:
            self._loop.post(lambda: self._connect_finished(status))

    def _on_ready(self, _ready: int) -> None:
        assert self._sock is not None
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error or _is_connected(self._sock):
            self._connect_finished(error)
        # Otherwise the event is stale: a socket with the same descriptor was closed in the same iteration.

    def _connect_finished(self, error_number: int) -> None:
        if self._is_done:
            return
        if not error_number and self._sock is not None and is_self_connected(self._sock):
            error_number = errno.ECONNREFUSED
        if error_number:
            self._fail(call_error("connect to", self._endpoint, OSError(error_number, "")))
            return
        self._release()
        self._is_done = True
        self._on_done(self._sock, None)

    def _on_timeout(self) -> None:
        self._fail(TimeoutExpired(self._endpoint.label, "connecting", CONNECT_TIMEOUT))

    def _fail(self, error: BothendsError) -> None:
        if self._is_done:
            return
        self._is_done = True
        self._release()
        if self._sock is not None:
            self._sock.close()
        self._on_done(None, error)

    def _release(self) -> None:
        if self._sock is not None and self._sock.fileno() >= 0:
            self._loop.unwatch(self._sock.fileno())
        if self._timer is not None:
            self._timer.cancel()

    def _connect_in_thread(self) -> None:
        """Connect with blocking calls; runs in a thread."""
        try:
            sock = open_connection(self._endpoint, timeout=CONNECT_TIMEOUT)
        except BothendsError as error:
            self._loop.post(functools.partial(self._fail, error))
            return
        sock.setblocking(False)

        def hand_over() -> None:
            if self._is_done:
                sock.close()
            else:
                self._sock = sock
                self._connect_finished(0)

        self._loop.post(hand_over)


def check_upstream(endpoint: Endpoint) -> None:
    """Reject an endpoint that cannot be connected to. Raises SystemCallFailed."""
    if endpoint.port == 0:
        raise SystemCallFailed(
            "connect to", endpoint.label, errno.EADDRNOTAVAIL, "port 0 is for listening only"
        )


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _is_numeric(endpoint: Endpoint) -> bool:
    """Whether the endpoint needs no look-up and no blocking connect(2)."""
    if endpoint.scheme not in ("tcp", "udp", "mptcp", "sctp"):
        return False
    try:
        ipaddress.ip_address(endpoint.host.partition("%")[0])
    except ValueError:
        return False
    return True
