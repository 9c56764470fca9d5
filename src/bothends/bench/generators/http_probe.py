"""Send the request of an HTTP target a few times, to learn what its responses are."""

from __future__ import annotations

from typing import Final

from bothends.bench.http_response import HttpResponseReader, MalformedResponse
from bothends.bench.http_target import HttpExchange
from bothends.client.blocking import connect
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint
from bothends.errors import UsageError

PROBES: Final = 3
"""Responses that are compared with each other, each on a connection of its own."""

MAX_BODY: Final = 64 * 1024 * 1024
"""Bytes of a body that are kept to compare with."""


def probe(
    endpoint: Endpoint, exchange: HttpExchange, request: bytes, *, tls: TlsOptions | None, timeout: float
) -> list[tuple[int, bytes]]:
    """Return status and body of the first responses.

    Raises UsageError if a response is malformed, truncated or too long; BothendsError if a request fails.
    """
    return [_probe_once(endpoint, exchange, request, tls, timeout) for _ in range(PROBES)]


def _probe_once(
    endpoint: Endpoint, exchange: HttpExchange, request: bytes, tls: TlsOptions | None, timeout: float
) -> tuple[int, bytes]:
    body = bytearray()
    reader = HttpResponseReader(no_body=exchange.has_no_body, on_body=body.extend)
    hint = "to measure it as it is, give --expect-status and --verify status"
    try:
        with connect(endpoint, timeout=timeout, tls=tls) as connection:
            connection.send(request)
            while data := connection.receive():
                if reader.feed(data):
                    return reader.head.status, bytes(body)
                if len(body) > MAX_BODY:
                    raise UsageError(f"{exchange.url}: the body exceeds {MAX_BODY >> 20} MiB; {hint}")
    except MalformedResponse as malformed:
        raise UsageError(f"{exchange.url}: malformed response ({malformed.reason}); {hint}") from malformed
    if not reader.end():
        raise UsageError(
            f"{exchange.url}: the connection was closed before the response was complete; {hint}"
        )
    return reader.head.status, bytes(body)
