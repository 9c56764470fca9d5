"""Misbehave as a peer on purpose: resets, half-closes, odd segment boundaries, connections that never read.

Each function does one thing to one socket at once, and documents its effect on the other end. They take plain
blocking sockets, as returned by `sockets.open_connection`, so that nothing is between a test and the kernel.
Delays are passed in (`between`, `interval`), so that tests control all timing.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from bothends.client.receive_buffer import translate_oserror
from bothends.endpoints import Address, Endpoint
from bothends.sockets import open_connection
from bothends.sockets.options import reset_on_close

__all__ = [
    "close_with_unread_data",
    "connect_and_reset",
    "connect_without_reading",
    "flood",
    "half_close",
    "reset",
    "send_bytewise",
    "send_split",
    "split",
]

# Below the minimum of every kernel, which then applies: on Linux 2,304 bytes (SOCK_MIN_RCVBUF).
_MIN_RECEIVE_BUFFER = 1


def reset(sock: socket.socket) -> None:
    """Close with RST: the peer's next read or write fails with ECONNRESET, and data in flight is lost.

    A linger time of zero makes close() discard unsent data and reset (RFC 9293, 3.10.5, ABORT). A UNIX socket
    has no RST: it is closed, and the peer gets ECONNRESET only if its data was left unread.
    """
    reset_on_close(sock)
    sock.close()


def half_close(sock: socket.socket) -> None:
    """Send FIN: the peer reads EOF and can still reply.

    Raises:
        ConnectionLost: the connection is closed or reset already.
    """
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        raise translate_oserror(error, "half-closing", _peer_label(sock), datagrams=False) from error


def split(data: bytes, *, at: Iterable[int] = (), every: int | None = None) -> Iterator[bytes]:
    """Split data at the offsets `at`, or after every `every` bytes. Pure; no chunk is empty."""
    requested = range(every, len(data), every) if every is not None else at
    offsets = sorted({0, len(data), *(offset for offset in requested if 0 < offset < len(data))})
    for start, stop in itertools.pairwise(offsets):
        yield data[start:stop]


def send_split(
    sock: socket.socket,
    data: bytes,
    *,
    at: Sequence[int] = (),
    every: int | None = None,
    between: Callable[[], object] = lambda: None,
) -> None:
    """Send data split at the offsets `at`, or after every `every` bytes, and call `between` between chunks.

    Nagle's algorithm is disabled, so that each chunk is sent as a separate segment. Whether the peer's reads
    return the same chunks depends on when it reads: `between` may wait until it has.

    Raises:
        ConnectionLost: the peer has closed or reset.
    """
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    first = True
    for chunk in split(data, at=at, every=every):
        if not first:
            between()
        first = False
        try:
            sock.sendall(chunk)
        except OSError as error:
            raise translate_oserror(error, "sending", _peer_label(sock), datagrams=False) from error


def send_bytewise(
    sock: socket.socket, data: bytes, interval: float = 0.02, *, sleep: Callable[[float], object] = time.sleep
) -> None:
    """Send byte by byte, `interval` seconds apart, which breaks servers that take one read for one message.

    Raises:
        ConnectionLost: the peer has closed or reset.
    """
    send_split(sock, data, every=1, between=lambda: sleep(interval))


def connect_and_reset(endpoint: Endpoint, *, timeout: float = 10.0) -> None:
    """Connect and reset at once, before the server accepts.

    Its accept() then fails with ECONNABORTED on some systems; on Linux it succeeds, and the first read fails.

    Raises:
        SystemCallFailed, TimeoutExpired: as for any connection.
    """
    reset(open_connection(endpoint, timeout=timeout))


def connect_without_reading(endpoint: Endpoint, *, timeout: float = 10.0) -> socket.socket:
    """Connect with the smallest possible receive buffer.

    Unless it is read, it fills with little more than 2 KB, and a peer that sends with a blocking call blocks.
    (On a UNIX socket the sender's buffer counts.)

    Raises:
        SystemCallFailed, TimeoutExpired: as for any connection.
    """
    return open_connection(endpoint.with_options(rcvbuf=_MIN_RECEIVE_BUFFER), timeout=timeout)


def flood(sock: socket.socket, chunk: bytes, max_bytes: int, *, timeout: float = 0.5) -> int:
    """Send without reading, until no byte is accepted for `timeout` seconds or `max_bytes` are sent.

    Returns: the bytes accepted. For a server with unbounded buffers that is the amount it holds in memory;
    for one that stops reading while its output is not read, it is little more than the kernel's buffers.

    Raises:
        ConnectionLost: the peer has closed or reset; the number of bytes sent is unknown.
    """
    previous_timeout = sock.gettimeout()
    sock.settimeout(timeout)
    sent = 0
    try:
        while sent < max_bytes:
            sent += sock.send(chunk[: max_bytes - sent])
    except TimeoutError:
        pass
    except OSError as error:
        raise translate_oserror(error, "flooding", _peer_label(sock), datagrams=False) from error
    finally:
        sock.settimeout(previous_timeout)
    return sent


def close_with_unread_data(sock: socket.socket) -> None:
    """Wait for input, leave it unread and close.

    The kernel then sends RST, not FIN (RFC 1122, 4.2.2.13), which can destroy data still in flight to the
    peer.
    """
    with suppress(OSError):
        sock.recv(1, socket.MSG_PEEK)
    sock.close()


def _peer_label(sock: socket.socket) -> str:
    try:
        return str(Address.from_sockaddr(sock.family, sock.getpeername()))
    except OSError:
        return "a disconnected peer"
