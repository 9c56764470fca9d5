"""Open many connections to one endpoint without waiting for each.

The first is opened by `bothends.client`: it resolves names, tries every address, and raises detailed errors.
The others connect to the address that accepted the first.
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
    """Opens sockets that connect to an endpoint.

    The constructor opens the first connection. Raises BothendsError if that fails.
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
        self.server_name = options.name or endpoint.host.partition("%")[0] or "localhost"
        first = open_stream(endpoint, timeout=timeout, tls=tls)
        self.first_socket = first if keep_first else None
        """The first connection if `keep_first`; the caller closes it. Otherwise None."""
        try:
            self.family, self.kind, self.protocol = int(first.family), int(first.type), first.proto
            self.address: Any = first.getpeername()
        except BaseException:
            first.close()
            raise
        if not keep_first:
            first.close()
        self.message_oriented = self.kind != socket.SOCK_STREAM
        self._send_timeout = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6) or 1)
        # The end that closes first keeps the port in TIME_WAIT for a minute, or on loopback for at least a
        # second (net.ipv4.tcp_tw_reuse). 28,000 ephemeral ports are too few for a fast server, so several
        # source addresses of 127/8 are used.
        loopback = self.family == socket.AF_INET and str(self.address[0]).startswith("127.")
        self.source_addresses = (
            [f"127.0.1.{each}" for each in range(1, _SOURCE_COUNT + 1)] if loopback and reconnect else []
        )
        self._next_source = itertools.cycle(self.source_addresses)

    @property
    def receive_buffer(self) -> int:
        """SO_RCVBUF for a datagram socket, so that the generator does not drop responses; 0: the default."""
        needs_buffer = self.kind == socket.SOCK_DGRAM and self.endpoint.number("rcvbuf") is None
        return _RECEIVE_BUFFER if needs_buffer else 0

    @property
    def is_tls(self) -> bool:
        """Whether a TLS handshake follows the connect."""
        return self._context is not None

    def start_connect(self) -> tuple[socket.socket, int]:
        """Start a connect. Returns a non-blocking socket, and the result of connect(2): 0 or an errno.

        Raises OSError if the socket cannot be created or bound.
        """
        sock = socket.socket(self.family, self.kind, self.protocol)
        try:
            apply_options(sock, self.endpoint, listening=False)
            if self.source_addresses:
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((next(self._next_source), 0))
            if self.kind == socket.SOCK_DGRAM:
                if self.family == socket.AF_UNIX:
                    sock.bind(b"")  # autobind (unix(7)): without an address the socket gets no responses
                if self.receive_buffer:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
            if self.family == socket.AF_UNIX and self.kind != socket.SOCK_DGRAM:
                # While the accept queue is full a non-blocking connect fails with EAGAIN, and epoll does not
                # report when there is room. A blocking connect waits, for at most the send timeout.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, self._send_timeout)
                status = sock.connect_ex(self.address)
                sock.setblocking(False)
                return sock, errno.ETIMEDOUT if status == errno.EAGAIN else status
            sock.setblocking(False)
            return sock, sock.connect_ex(self.address)
        except BaseException:
            sock.close()
            raise

    def on_connected(self, sock: socket.socket) -> socket.socket:
        """Prepare a connected stream: send the PROXY header, wrap in TLS without the handshake."""
        if "proxyprotocol" in self.endpoint.wrappers:
            ends = (
                Address.from_sockaddr(sock.family, name) for name in (sock.getsockname(), sock.getpeername())
            )
            sock.send(encode_header(self.endpoint.number("header") or 2, *ends))
        if self._context is None:
            return sock
        name, context = self.server_name, self._context
        return context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)

    def check_certificate(self, sock: ssl.SSLSocket) -> None:
        """Check the peer certificate's fingerprint after the handshake. Raises ssl.SSLError if it differs."""
        if self._fingerprint:
            shown = hashlib.sha256(sock.getpeercert(binary_form=True) or b"").hexdigest()
            if not hmac.compare_digest(shown, self._fingerprint):
                raise ssl.SSLError("the certificate's fingerprint differs")


def check_target(endpoint: Endpoint) -> None:
    """Raise UsageError if an endpoint cannot be benchmarked."""
    if endpoint.scheme not in SCHEMES:
        raise UsageError(f"bench needs an address to connect to, and {endpoint.label} has none")


def detect_rule(endpoint: Endpoint, *, tls: TlsOptions | None, timeout: float) -> Expect:
    """Send one request, and return the rule that the response follows.

    Raises UsageError if it follows none, BothendsError if the request fails.
    """
    newline = not endpoint.is_message_oriented
    message = numbered(32, "echo", newline=newline).requests[1]
    request = message.removesuffix(b"\n")
    with connect(endpoint, timeout=timeout, tls=tls) as connection:
        response = connection.request(request, retries=2 if endpoint.is_datagram else 0)
    rule = matching_rule(request, response)
    if rule is None:
        raise UsageError(
            f"{endpoint.label} responded to {escape(request)!r} with {escape(response[:80])!r}, which is "
            f"neither an echo nor upper case; use --script FILE to give requests and expected responses"
        )
    return rule


def error_name(error: OSError) -> str:
    """Return a short name of a connection error for a result: "ECONNRESET"."""
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "reason", None) or error)  # OpenSSL's reason, or our text
    number = error.errno or 0
    return errno.errorcode.get(number, os.strerror(number))
