"""Opening many connections to one endpoint, without waiting for each.

The first is opened as any client opens one (`bothends.client`): names are resolved, every address is
tried, and a refusal is told in full. The others go to the address that answered.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import itertools
import os
import socket
import ssl
import struct
from typing import Any, Final

from bothends.bench.workload import Expect, matching_rule, numbered
from bothends.client.blocking import connect
from bothends.client.dial import open_stream
from bothends.client.tls import TlsOptions
from bothends.endpoints import Address, Endpoint
from bothends.errors import UsageError
from bothends.escaping import escape
from bothends.layers import encode_header
from bothends.sockets.options import apply_options

SCHEMES: Final = ("tcp", "tls", "mptcp", "udp", "unix", "unix+dgram", "unix+seqpacket", "vsock", "sctp")

_IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h
_SOURCE_COUNT: Final = 64
_RECEIVE_BUFFER: Final = 4 * 1024 * 1024


class BenchDialer:
    """Makes sockets that connect to an endpoint.

    Raises, when it is made, whatever keeps the first connection from being opened (BothendsError).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        tls: TlsOptions | None,
        timeout: float,
        reconnect: bool = False,
        keep_first: bool = False,
    ) -> None:
        self.endpoint = endpoint
        options = tls or TlsOptions()
        self._context = options.context() if endpoint.scheme == "tls" else None
        self._fingerprint = options.fingerprint
        self._server_hostname = options.name or endpoint.host.partition("%")[0] or "localhost"
        with open_stream(endpoint, timeout=timeout, tls=tls) as first:
            self.family, self.kind, self.protocol = int(first.family), int(first.type), first.proto
            self.address: Any = first.getpeername()
            self.first_socket = first.dup() if keep_first else None
            """The first connection, if it is to be kept: whoever uses it closes it."""
        self.message_oriented = self.kind != socket.SOCK_STREAM
        self._send_timeout = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6) or 1)
        # Whoever closes first keeps the port for a minute (TIME_WAIT), and on loopback for a second at least
        # (net.ipv4.tcp_tw_reuse): 28,000 ports are too few for a fast server. 127/8 has many addresses.
        loopback = self.family == socket.AF_INET and str(self.address[0]).startswith("127.")
        self.source_addresses = (
            [f"127.0.1.{each}" for each in range(1, _SOURCE_COUNT + 1)] if loopback and reconnect else []
        )
        self._next_source = itertools.cycle(self.source_addresses)

    @property
    def receive_buffer(self) -> int:
        """What a datagram socket should ask for (SO_RCVBUF), lest answers are lost at our end; 0: nothing."""
        wanted = self.kind == socket.SOCK_DGRAM and self.endpoint.number("rcvbuf") is None
        return _RECEIVE_BUFFER if wanted else 0

    @property
    def is_tls(self) -> bool:
        """There is a handshake to be done when it is connected."""
        return self._context is not None

    def start_connect(self) -> tuple[socket.socket, int]:
        """A non-blocking socket and what connect(2) answered: 0, EINPROGRESS, or another errno.

        Raises OSError where no socket can be made.
        """
        sock = socket.socket(self.family, self.kind, self.protocol)
        try:
            apply_options(sock, self.endpoint, listening=False)
            if self.source_addresses:
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((next(self._next_source), 0))
            if self.kind == socket.SOCK_DGRAM:
                if self.family == socket.AF_UNIX:
                    sock.bind(b"")  # without a name it couldn't be answered; an empty one has the kernel pick
                if self.receive_buffer:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
            if self.family == socket.AF_UNIX and self.kind != socket.SOCK_DGRAM:
                # While the listener's queue is full a non-blocking connect answers EAGAIN, and nothing tells
                # when there is room; a blocking one waits, as long as the time limit for sending.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, self._send_timeout)
                answer = sock.connect_ex(self.address)
                sock.setblocking(False)
                return sock, errno.ETIMEDOUT if answer == errno.EAGAIN else answer
            sock.setblocking(False)
            return sock, sock.connect_ex(self.address)
        except BaseException:
            sock.close()
            raise

    def on_connected(self, sock: socket.socket) -> socket.socket:
        """What it takes when a stream is connected: the PROXY header is sent, TLS put on (not shaken yet)."""
        if "proxyprotocol" in self.endpoint.wrappers:
            ends = (
                Address.from_sockaddr(sock.family, name) for name in (sock.getsockname(), sock.getpeername())
            )
            sock.send(encode_header(self.endpoint.number("header") or 2, *ends))
        if self._context is None:
            return sock
        name, context = self._server_hostname, self._context
        return context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)

    def check_certificate(self, sock: ssl.SSLSocket) -> None:
        """After the handshake: is it the certificate that was asked for? Raises ssl.SSLError."""
        if self._fingerprint:
            shown = hashlib.sha256(sock.getpeercert(binary_form=True) or b"").hexdigest()
            if not hmac.compare_digest(shown, self._fingerprint):
                raise ssl.SSLError("its certificate is another one")


def check_target(endpoint: Endpoint) -> None:
    """Raises CallerError for an endpoint that is no address."""
    if endpoint.scheme not in SCHEMES:
        raise UsageError(f"bench measures an address, and {endpoint.label} is none")


def detect_rule(endpoint: Endpoint, *, tls: TlsOptions | None, timeout: float) -> Expect:
    """Ask once, and see by which rule it answers.

    Raises CallerError if by neither, BothendsError if it can't be asked.
    """
    newline = not endpoint.is_message_oriented
    message = numbered(32, "echo", newline=newline).requests[1]
    question = message.removesuffix(b"\n")
    with connect(endpoint, timeout=timeout, tls=tls) as connection:
        answer = connection.request(question, retries=2 if endpoint.is_datagram else 0)
    found = matching_rule(question, answer)
    if found is None:
        raise UsageError(
            f"{endpoint.label} answers {escape(question)!r} neither with the same nor with it in capitals, "
            f"but with {escape(answer[:80])!r}; --script FILE says what to send and what must come"
        )
    return found


def error_name(error: OSError) -> str:
    """An error of a connection in a few words, for a result."""
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error)
    number = error.errno or 0
    return errno.errorcode.get(number, os.strerror(number))
