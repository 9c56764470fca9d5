"""Opening a connection: every address of a host is tried, the first that answers wins.

Happy Eyeballs version 2 (RFC 8305), from its section 4 on: the addresses come from one blocking
getaddrinfo(3), so DNS queries don't race (section 3). The attempts are non-blocking sockets in one poll
loop; no threads.
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

ATTEMPT_DELAY: Final = 0.25  # seconds: the Connection Attempt Delay that RFC 8305 section 5 recommends

_IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h

# When every address fails, the error that says most comes first: a host that answered, then one that was
# looked for, then a way that wasn't found.
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
    """Connect to an endpoint; gives a blocking socket, which the caller closes.

    `timeout` in seconds, over all addresses (default: as long as the kernel tries). Names are resolved by
    getaddrinfo(3), which blocks and which no time limit interrupts; its time counts. `source` is the address
    and port to connect from (port 0: any). An empty host is this machine, over loopback.

    For udp a connected socket, on the first address to which there is a route: nothing is sent. For
    unix+dgram the socket gets an abstract name of its own, so that answers can come back.

    Raises TimeLimit, NameRefused, Unavailable where the kernel lacks the family, EndpointError for what
    cannot be connected to, SystemRefused. If several addresses failed, its errno is the most telling one, its
    hint names them all, and its cause is a group.
    """
    if endpoint.scheme == "systemd":
        raise Unavailable("connect to", endpoint.label, reason="systemd:// is for listening only")
    deadline = None if timeout is None else time.monotonic() + timeout
    if endpoint.fd is not None:
        return _open_inherited_connection(endpoint)
    if endpoint.scheme == "stdio":
        raise EndpointError(str(endpoint), "it is nobody to connect to", "serve can serve it")
    if source is not None and (endpoint.is_unix or endpoint.scheme == "vsock"):
        raise EndpointError(str(endpoint), "it takes no source address")
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
    where = Endpoint(endpoint.scheme, host=host, port=port)
    return {target.family: target for target in reversed(resolve(where, resolver))}


class _Race:
    """Attempts at several addresses, started one after the other, of which one wins."""

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
        """The first socket that is connected, blocking. Raises SystemRefused, TimeLimit."""
        next_start = time.monotonic()
        try:
            while self._queue or self._running:
                now = time.monotonic()
                failures = len(self._failed)
                if self._queue and (now >= next_start or not self._running):
                    next_start = now + self._delay
                    winner = self._start(self._queue.popleft())
                else:
                    ends = [end for end in (next_start if self._queue else None, deadline) if end is not None]
                    winner = self._wait(min(ends) - now if ends else None)
                    if winner is None and deadline is not None and time.monotonic() >= deadline:
                        raise TimeoutExpired(
                            self._endpoint.label, "connecting", timeout, self._attempt_summary()
                        )
                if winner is not None:
                    return winner
                if len(self._failed) > failures:
                    next_start = now  # a failure starts the next at once (RFC 8305 section 5)
            raise self._connect_error()
        finally:
            for sock, _ in self._running.values():
                sock.close()

    def _start(self, target: AddrInfo) -> socket.socket | None:
        """Start an attempt; gives the socket if it is connected already, as for UDP."""
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
            answer = sock.connect_ex(target.sockaddr)
        except OSError as error:
            sock.close()
            self._failed.append((target, error))
            return None
        except BaseException:
            sock.close()
            raise
        if answer == errno.EINPROGRESS:
            self._running[sock.fileno()] = (sock, target)
            self._poll.register(sock, select.POLLOUT)
            return None
        return self._finish_attempt(sock, target, answer)

    def _bind(self, sock: socket.socket, target: AddrInfo) -> None:
        if (source := self._sources.get(target.family)) is None:
            return
        if source.sockaddr[1]:
            # Two attempts of one family share the source port; neither listens, so this is all it takes.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            # The port is picked at connect, when the peer is known: then one port serves several peers.
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind(source.sockaddr)

    def _wait(self, timeout: float | None) -> socket.socket | None:
        """Wait for any attempt to end; gives the socket of one that succeeded."""
        # poll(2) takes milliseconds: rounded up, lest the last one is spent turning round.
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
        """All attempts failed: the error for the one that says most, with what became of the others."""
        if len(self._socket_errors) == len(self._failed):  # not one socket could be made: the kernel lacks it
            self._socket_errors[0].__cause__ = self._failed[0][1]
            return self._socket_errors[0]
        errors = [error for _, error in self._failed]
        best = min(errors, key=_errno_rank)
        if len(errors) == 1:
            refused = call_error("connect to", self._endpoint, best)
            refused.__cause__ = best
        else:
            hint = hint_for("connect", self._endpoint, best.errno or 0)
            hint = "; ".join(part for part in (hint, self._attempt_summary()) if part)
            refused = call_error("connect to", self._endpoint, best, hint)
            refused.__cause__ = ExceptionGroup("every address failed", errors)
        return refused

    def _attempt_summary(self) -> str:
        """Each address and what became of it; empty where there is one only."""
        tried = [(_host(target), errno_text(error.errno or 0)) for target, error in self._failed]
        tried += [(_host(target), "no answer") for _, target in self._running.values()]
        if len(tried) < 2:
            return ""
        if len({answer for _, answer in tried}) == 1:
            return "tried " + ", ".join(host for host, _ in tried)
        return "tried " + ", ".join(f"{host} ({answer})" for host, answer in tried)


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
        raise EndpointError(str(endpoint), "a name is needed to connect to", "for example unix://@name")
    try:
        sock = socket.socket(socket.AF_UNIX, kind, protocol)
    except OSError as error:
        raise socket_error(endpoint, error) from error
    try:
        apply_options(sock, endpoint, listening=False)
        if kind == socket.SOCK_DGRAM:
            # A datagram socket without a name can't be answered; an empty one has the kernel pick (unix(7)).
            sock.bind(b"")
        if timeout is not None:
            # While the queue of the listener is full, a non-blocking connect answers EAGAIN at once, and
            # nothing tells when there is room; a blocking one waits, as long as the time limit for sending.
            _set_send_timeout(sock, max(timeout, 1e-6))
        sock.connect(unix_name(endpoint))
        if timeout is not None:
            _set_send_timeout(sock, 0)
    except BlockingIOError as error:
        sock.close()
        hint = "the queue of the listener is full"
        raise TimeoutExpired(endpoint.label, "connecting", timeout or 0, hint) from error
    except OSError as error:
        sock.close()
        raise call_error("connect to", endpoint, error) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _set_send_timeout(sock: socket.socket, timeout: float) -> None:
    # struct timeval; rounded up, for all zeros means no limit.
    whole, part = divmod(math.ceil(timeout * 1e6), 1_000_000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", whole, part))
