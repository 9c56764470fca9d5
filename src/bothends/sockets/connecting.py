"""Open a connection: try every address of a host, use the first that connects.

Happy Eyeballs version 2 (RFC 8305), from section 4 on. The addresses come from one blocking getaddrinfo(3),
so DNS queries do not race (section 3). The attempts are non-blocking sockets in one poll loop, without
threads.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from bothends.endpoints import Address, Endpoint
from bothends.errors import EndpointError, SystemCallFailed, TimeoutExpired, Unavailable, errno_text
from bothends.sockets.inherited import open_inherited
from bothends.sockets.options import apply_options
from bothends.sockets.resolve import (
    SOCKET_TYPES,
    VMADDR_CID_LOCAL,
    AddrInfo,
    Resolver,
    interleave,
    loopback_addresses,
    resolve,
)
from bothends.sockets.socket_errors import call_error, hint_for, socket_error
from bothends.sockets.unix import unix_name

ATTEMPT_DELAY: Final = 0.25  # seconds: the Connection Attempt Delay recommended by RFC 8305 section 5

_IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h

# When every address fails, the most specific error is reported: first errors sent by the host, then timeouts
# and refusals on the way, then missing routes, then errors of this machine.
_ERRNO_PRIORITY: Final = (
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ETIMEDOUT,
    errno.EACCES,
    errno.EPERM,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EADDRINUSE,
    errno.EADDRNOTAVAIL,
)


def open_connection(
    endpoint: Endpoint,
    *,
    timeout: float | None = None,
    source: tuple[str, int] | None = None,
    attempt_delay: float = ATTEMPT_DELAY,
    resolver: Resolver = socket.getaddrinfo,
) -> socket.socket:
    """Connect to an endpoint. Returns a blocking socket; the caller closes it.

    Args:
        endpoint: the target. An empty host means this machine, over loopback. For udp, connecting selects the
            first address with a route and sends nothing. For unix+dgram the socket is bound to an abstract
            name, so that the peer can reply.
        timeout: seconds for all addresses together; None leaves it to the kernel. getaddrinfo(3) blocks and
            cannot be interrupted, but its time counts.
        source: address and port to connect from; port 0 means any.
        attempt_delay: seconds between the starts of two attempts.
        resolver: replaces getaddrinfo in tests.

    Raises:
        EndpointError: the endpoint cannot be connected to.
        ResolveError: the host has no address.
        TimeoutExpired: no connection within `timeout`.
        Unavailable: the kernel lacks the socket family.
        SystemCallFailed: the connect failed. If several addresses failed, `errno` is the most specific one,
            `hint` lists all addresses, and `__cause__` is an ExceptionGroup.
    """
    if endpoint.scheme == "systemd":
        raise Unavailable("connect to", endpoint.label, reason="systemd:// is for listening only")
    deadline = None if timeout is None else time.monotonic() + timeout
    if endpoint.fd is not None:
        return _open_inherited_connection(endpoint)
    if endpoint.scheme == "stdio":
        raise EndpointError(str(endpoint), "it cannot be connected to", "serve can serve it")
    if source is not None and (endpoint.is_unix or endpoint.scheme == "vsock"):
        raise EndpointError(str(endpoint), "the scheme has no source address")
    if endpoint.is_unix:
        return _connect_unix(endpoint, timeout)
    if endpoint.scheme == "vsock":
        cid = int(endpoint.host) if endpoint.host else VMADDR_CID_LOCAL
        targets = [AddrInfo(socket.AF_VSOCK, (cid, endpoint.port))]
    else:
        targets = resolve(endpoint, resolver) if endpoint.host else loopback_addresses(endpoint)
    sources = _source_addresses(endpoint, source, resolver)
    if source is not None:
        targets = [target for target in targets if target.family in sources]
        if not targets:
            reason = f"no address of the same family as the source {source[0]}"
            raise EndpointError(str(endpoint), reason)
    race = _Race(endpoint, interleave(targets), sources, attempt_delay)
    return race.run(deadline, timeout or 0)


def _open_inherited_connection(endpoint: Endpoint) -> socket.socket:
    listener = open_inherited(endpoint.fd or 0, endpoint)
    if listener.role != "connection":
        listener.socket.detach()
        raise EndpointError(str(endpoint), "the socket is not connected", "serve can serve it")
    return listener.socket


def _source_addresses(
    endpoint: Endpoint, source: tuple[str, int] | None, resolver: Resolver
) -> dict[int, AddrInfo]:
    if source is None:
        return {}
    host, port = source
    if not host:
        return {
            socket.AF_INET: AddrInfo(socket.AF_INET, ("0.0.0.0", port)),
            socket.AF_INET6: AddrInfo(socket.AF_INET6, ("::", port)),
        }
    source_endpoint = Endpoint(endpoint.scheme, host=host, port=port)
    return {target.family: target for target in reversed(resolve(source_endpoint, resolver))}


class _Race:
    """Staggered connection attempts to several addresses; the first to connect wins."""

    def __init__(
        self, endpoint: Endpoint, targets: Sequence[AddrInfo], sources: dict[int, AddrInfo], delay: float
    ) -> None:
        self._endpoint = endpoint
        self._queue = deque(targets)
        self._sources = sources
        self._delay = delay
        self._running: dict[int, tuple[socket.socket, AddrInfo]] = {}
        self._failed: list[tuple[AddrInfo, OSError]] = []
        self._socket_errors: list[SystemCallFailed] = []
        self._poll = select.poll()

    def run(self, deadline: float | None, timeout: float) -> socket.socket:
        """Return the first connected socket, in blocking mode. Raises SystemCallFailed, TimeoutExpired."""
        next_start = time.monotonic()
        try:
            while self._queue or self._running:
                now = time.monotonic()
                failures = len(self._failed)
                if self._queue and (now >= next_start or not self._running):
                    next_start = now + self._delay
                    winner = self._start(self._queue.popleft())
                else:
                    wakeups = [at for at in (next_start if self._queue else None, deadline) if at is not None]
                    winner = self._wait(min(wakeups) - now if wakeups else None)
                    if winner is None and deadline is not None and time.monotonic() >= deadline:
                        raise TimeoutExpired(
                            self._endpoint.label, "connecting", timeout, self._attempt_summary()
                        )
                if winner is not None:
                    return winner
                if len(self._failed) > failures:
                    next_start = now  # a failure starts the next attempt at once (RFC 8305 section 5)
            raise self._connect_error()
        finally:
            for sock, _ in self._running.values():
                sock.close()

    def _start(self, target: AddrInfo) -> socket.socket | None:
        """Start an attempt. Returns the socket if it is connected already, as for UDP."""
        kind, protocol = SOCKET_TYPES[self._endpoint.scheme]
        try:
            sock = socket.socket(target.family, kind, protocol)
        except OSError as error:
            self._failed.append((target, error))
            self._socket_errors.append(socket_error(self._endpoint, error))
            return None
        try:
            apply_options(sock, self._endpoint, listening=False)
            sock.setblocking(False)
            self._bind(sock, target)
            error_number = sock.connect_ex(target.sockaddr)
        except OSError as error:
            sock.close()
            self._failed.append((target, error))
            return None
        except BaseException:
            sock.close()
            raise
        if error_number == errno.EINPROGRESS:
            self._running[sock.fileno()] = (sock, target)
            self._poll.register(sock, select.POLLOUT)
            return None
        return self._finish_attempt(sock, target, error_number)

    def _bind(self, sock: socket.socket, target: AddrInfo) -> None:
        if (source := self._sources.get(target.family)) is None:
            return
        if source.sockaddr[1]:
            # Attempts of one family share the source port. Neither listens, so SO_REUSEADDR is enough.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            # The kernel chooses the port at connect, when it knows the peer, so one port can serve several
            # peers.
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind(source.sockaddr)

    def _wait(self, timeout: float | None) -> socket.socket | None:
        """Wait until an attempt ends. Returns the socket of a successful one, or None."""
        # poll(2) takes milliseconds: rounded up, because rounding down would spin in the last one.
        milliseconds = None if timeout is None else max(0, math.ceil(timeout * 1000))
        winner = None
        for descriptor, _ in self._poll.poll(milliseconds):
            if winner is not None:
                break
            sock, target = self._running.pop(descriptor)
            self._poll.unregister(descriptor)
            winner = self._finish_attempt(sock, target, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return winner

    def _finish_attempt(
        self, sock: socket.socket, target: AddrInfo, error_number: int
    ) -> socket.socket | None:
        if error_number == 0 and is_self_connected(sock):
            error_number = errno.ECONNREFUSED
        if error_number == 0:
            sock.setblocking(True)
            return sock
        sock.close()
        self._failed.append((target, OSError(error_number, os.strerror(error_number))))
        return None

    def _connect_error(self) -> SystemCallFailed:
        """Build the error for the failure of all attempts: the most specific one, and a summary of all."""
        # If no socket could be created, the kernel lacks the family.
        if len(self._socket_errors) == len(self._failed):
            self._socket_errors[0].__cause__ = self._failed[0][1]
            return self._socket_errors[0]
        errors = [error for _, error in self._failed]
        best = min(errors, key=_errno_rank)
        if len(errors) == 1:
            failure = call_error("connect to", self._endpoint, best)
            failure.__cause__ = best
        else:
            hint = hint_for("connect", self._endpoint, best.errno or 0)
            hint = "; ".join(part for part in (hint, self._attempt_summary()) if part)
            failure = call_error("connect to", self._endpoint, best, hint)
            failure.__cause__ = ExceptionGroup("every address failed", errors)
        return failure

    def _attempt_summary(self) -> str:
        """Return each address with its outcome; empty if there is only one."""
        tried = [(_host(target), errno_text(error.errno or 0)) for target, error in self._failed]
        tried += [(_host(target), "no answer") for _, target in self._running.values()]
        if len(tried) < 2:
            return ""
        if len({outcome for _, outcome in tried}) == 1:
            return "tried " + ", ".join(host for host, _ in tried)
        return "tried " + ", ".join(f"{host} ({outcome})" for host, outcome in tried)


def _host(target: AddrInfo) -> str:
    return Address.from_sockaddr(target.family, target.sockaddr).host


def _errno_rank(error: OSError) -> int:
    return _ERRNO_PRIORITY.index(error.errno) if error.errno in _ERRNO_PRIORITY else len(_ERRNO_PRIORITY)


def is_self_connected(sock: socket.socket) -> bool:
    """Whether a TCP socket is connected to itself.

    For a connect to a local port without a listener the kernel may choose that same port as the source. The
    SYN then arrives as a simultaneous open (RFC 9293 section 3.5), and the socket reads its own output.
    """
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:  # reset in the meantime: the first read reports it
        return False


def _connect_unix(endpoint: Endpoint, timeout: float | None) -> socket.socket:
    kind, protocol = SOCKET_TYPES[endpoint.scheme]
    if endpoint.path == "@":
        raise EndpointError(str(endpoint), "connecting needs a name", "for example unix://@name")
    try:
        sock = socket.socket(socket.AF_UNIX, kind, protocol)
    except OSError as error:
        raise socket_error(endpoint, error) from error
    try:
        apply_options(sock, endpoint, listening=False)
        if kind == socket.SOCK_DGRAM:
            # A peer cannot reply to an unnamed datagram socket. An empty name lets the kernel choose one
            # (unix(7), autobind).
            sock.bind(b"")
        if timeout is not None:
            # While the listener's accept queue is full, a non-blocking connect fails with EAGAIN at once,
            # and no event reports when there is room. A blocking connect waits for up to SO_SNDTIMEO.
            _set_send_timeout(sock, max(timeout, 1e-6))
        sock.connect(unix_name(endpoint))
        if timeout is not None:
            _set_send_timeout(sock, 0)
    except BlockingIOError as error:
        sock.close()
        hint = "the accept queue of the listener is full"
        raise TimeoutExpired(endpoint.label, "connecting", timeout or 0, hint) from error
    except OSError as error:
        sock.close()
        raise call_error("connect to", endpoint, error) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _set_send_timeout(sock: socket.socket, timeout: float) -> None:
    # struct timeval; rounded up, because zero means no limit.
    seconds, microseconds = divmod(math.ceil(timeout * 1e6), 1_000_000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, microseconds))
