"""From an endpoint to a socket that is ready to talk: connected, announced by a header, secured."""

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
    """Connect, and put on what the endpoint names: the PROXY header first, then TLS.

    `timeout` in seconds is for all of it together.

    Raises what `open_connection` does, HandshakeFailed, and CallerError for `tls` without tls://.
    """
    if tls is not None and endpoint.scheme != "tls":
        raise UsageError(f"{endpoint.label} does not speak TLS; tls:// does")
    began = time.monotonic()
    sock = open_connection(endpoint, timeout=timeout, source=source)
    try:
        if "proxyprotocol" in endpoint.wrappers:
            sock.sendall(_proxy_header(sock, endpoint))
        if endpoint.scheme != "tls":
            return sock
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        return start_tls(sock, endpoint, tls or TlsOptions(), left)
    except OSError as error:
        sock.close()
        raise translate_oserror(error, "shaking hands", endpoint.label, datagrams=False) from error
    except BaseException:
        sock.close()
        raise


def _proxy_header(sock: socket.socket, endpoint: Endpoint) -> bytes:
    """We speak for ourselves, but as a proxy would for a client: with our addresses."""
    here, there = (
        Address.from_sockaddr(sock.family, name) for name in (sock.getsockname(), sock.getpeername())
    )
    return encode_header(endpoint.number("header") or 2, here, there)
