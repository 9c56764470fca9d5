"""Open a client connection: connect, send a PROXY header, start TLS."""

from __future__ import annotations

import socket
import time

from bothends.client.receive_buffer import translate_oserror
from bothends.client.tls import TlsOptions, start_tls
from bothends.endpoints import Address, Endpoint
from bothends.errors import UsageError
from bothends.layers import encode_header
from bothends.sockets import open_connection


def open_stream(
    endpoint: Endpoint,
    *,
    timeout: float | None,
    source: tuple[str, int] | None = None,
    tls: TlsOptions | None = None,
) -> socket.socket:
    """Connect, then send the PROXY header and do the TLS handshake that the endpoint names.

    `timeout` in seconds is for all steps together.

    Raises as `open_connection` does, HandshakeFailed, and UsageError for `tls` without tls://.
    """
    if tls is not None and endpoint.scheme != "tls":
        raise UsageError(f"{endpoint.label} does not speak TLS; tls:// does")
    started = time.monotonic()
    sock = open_connection(endpoint, timeout=timeout, source=source)
    try:
        if "proxyprotocol" in endpoint.wrappers:
            sock.sendall(_proxy_header(sock, endpoint))
        if endpoint.scheme != "tls":
            return sock
        remaining = None if timeout is None else max(0.0, timeout - (time.monotonic() - started))
        return start_tls(sock, endpoint, tls or TlsOptions(), remaining)
    except OSError as error:
        sock.close()
        raise translate_oserror(error, "doing the handshake", endpoint.label, datagrams=False) from error
    except BaseException:
        sock.close()
        raise


def _proxy_header(sock: socket.socket, endpoint: Endpoint) -> bytes:
    """Encode a header with the addresses of this connection, as a proxy does for a client."""
    local, peer = (
        Address.from_sockaddr(sock.family, name) for name in (sock.getsockname(), sock.getpeername())
    )
    return encode_header(endpoint.number("header") or 2, local, peer)
