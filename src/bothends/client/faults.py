"""What a peer can do to a server, on purpose: resets, half-closes, odd cuts, deaf ears.

Each verb does one thing to one socket, now, and says what the other end then meets. They take plain
blocking sockets, as `sockets.open_connection` gives them: whoever tests a server wants nothing
between himself and the kernel. Time is passed in (`between`, `pause`), so that a test decides how
long anything takes.
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

# Less than any kernel gives: it then takes its own least, on Linux 2,304 bytes (SOCK_MIN_RCVBUF).
_MIN_RECEIVE_BUFFER = 1


def reset(sock: socket.socket) -> None:
    """Close with RST: the other end's next read or write meets ECONNRESET, and what it had sent is lost.

    Closing with a linger time of zero discards what is unsent and resets (RFC 9293, 3.10.5, ABORT).
    A UNIX socket has no RST: it is closed, and the peer meets ECONNRESET only if we leave its bytes unread.
    """
    reset_on_close(sock)
    sock.close()


def half_close(sock: socket.socket) -> None:
    """Send FIN and read on: the other end reads EOF and can still answer.

    Raises:
        ConnectionLost: the connection is gone already.
    """
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        raise translate_oserror(error, "finishing", _peer_label(sock), datagrams=False) from error


def split(data: bytes, *, at: Iterable[int] = (), every: int | None = None) -> Iterator[bytes]:
    """The data cut before the places `at`, or after each `every` bytes. Pure; no piece is empty."""
    places = range(every, len(data), every) if every is not None else at
    cuts = sorted({0, len(data), *(place for place in places if 0 < place < len(data))})
    for start, stop in itertools.pairwise(cuts):
        yield data[start:stop]


def send_split(
    sock: socket.socket,
    data: bytes,
    *,
    at: Sequence[int] = (),
    every: int | None = None,
    between: Callable[[], object] = lambda: None,
) -> None:
    """Send the data cut before the places `at`, or after each `every` bytes, with `between` in between.

    Nagle's algorithm is turned off, so that each piece leaves as a segment of its own. Whether the
    other end's reads see the cuts depends on when it reads: `between` may wait until it has.

    Raises:
        ConnectionLost: the other end has closed or reset.
    """
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    first = True
    for piece in split(data, at=at, every=every):
        if not first:
            between()
        first = False
        try:
            sock.sendall(piece)
        except OSError as error:
            raise translate_oserror(error, "sending", _peer_label(sock), datagrams=False) from error


def send_bytewise(
    sock: socket.socket, data: bytes, interval: float = 0.02, *, sleep: Callable[[float], object] = time.sleep
) -> None:
    """Send byte by byte, `seconds` apart: who takes one read for one message answers nonsense.

    Raises:
        ConnectionLost: the other end has closed or reset.
    """
    send_split(sock, data, every=1, between=lambda: sleep(interval))


def connect_and_reset(endpoint: Endpoint, *, timeout: float = 10.0) -> None:
    """Connect and reset at once: the server's accept() meets a connection that is gone (ECONNABORTED on
    some systems; on Linux it succeeds, and the first read fails).

    Raises:
        SystemRefused, TimeLimit: as for any connection.
    """
    reset(open_connection(endpoint, timeout=timeout))


def connect_without_reading(endpoint: Endpoint, *, timeout: float = 10.0) -> socket.socket:
    """Connect with the smallest receive buffer there is: left unread, it fills with little more than 2 KB,
    and whoever sends with a blocking call hangs in it. (On a UNIX socket the sender's buffer counts.)

    Raises:
        SystemRefused, TimeLimit: as for any connection.
    """
    return open_connection(endpoint.with_options(rcvbuf=_MIN_RECEIVE_BUFFER), timeout=timeout)


def flood(sock: socket.socket, chunk: bytes, max_bytes: int, *, timeout: float = 0.5) -> int:
    """Send and never read, until nothing has been taken for `patience` seconds or `most` bytes are out.

    Gives how many bytes were taken: those that a server without bounds keeps in memory, and little more
    than the kernel's buffers for one that stops reading while its answers aren't taken.

    Raises:
        ConnectionLost: the other end has closed or reset; how far it got is not known.
    """
    before = sock.gettimeout()
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
        sock.settimeout(before)
    return sent


def close_with_unread_data(sock: socket.socket) -> None:
    """Wait for input, leave it unread and close: the kernel answers with RST, not FIN (RFC 1122, 4.2.2.13),
    which can destroy what is still on its way to the other end.
    """
    with suppress(OSError):
        sock.recv(1, socket.MSG_PEEK)
    sock.close()


def _peer_label(sock: socket.socket) -> str:
    try:
        return str(Address.from_sockaddr(sock.family, sock.getpeername()))
    except OSError:
        return "a peer that has gone"
