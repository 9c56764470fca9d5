"""Rules about HTTP/1.1 requests that a server does not take as they are meant. Pure.

A request without a Host field gets 400 (RFC 9112, section 3.2). One that asks for WebSocket gets another
status than 101 from a server, or at a path, that does not speak it (RFC 6455, section 4.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.turns import Turn, both_ends, peer_socket, stream_of
from bothends.trace.model import Socket
from bothends.trace.rendering import formatting

_REQUEST: Final = re.compile(rb"([A-Z]{3,10} [^\r\n]{1,2000} HTTP/1\.1)\r\n")
_HOST: Final = re.compile(rb"(?i)\nhost[ \t]*:")
_BAD_REQUEST: Final = re.compile(rb"HTTP/1\.[01] 400[ \r]")
_WEBSOCKET: Final = re.compile(rb"(?i)\nupgrade[ \t]*:[ \t]*websocket[ \t]*\r?\n")
_SWITCHES: Final = re.compile(rb"HTTP/1\.1 (?:101|3\d\d|401|407)[ \r]")  # or asks for something else first
_STATUS: Final = re.compile(rb"HTTP/1\.[01] \d{3}[ \r]")
_SHOWN: Final = 40  # bytes of a line in a text


def http_host_missing(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a request of HTTP/1.1 that has no Host field, and was answered with the status 400."""
    for socket, sent, received, header in _first_requests(trace_index):
        if _HOST.search(header) is not None or not _BAD_REQUEST.match(received.data):
            continue
        client = name_of(trace_index, sent.calls[0].process)
        yield Finding(
            "http-host-missing",
            "An HTTP/1.1 request without Host was rejected",
            f"{capitalized(client)} sent {_first_line(header)} without a Host field, and received "
            f"{_first_line(received.data)}. HTTP/1.1 requires the field; a server answers 400 without it.",
            "Send a Host field in each request, with the name of the server, and its port unless it is 80.",
            (sent.calls[0].number, received.calls[0].number),
            "inferred",
            "RFC 9112, section 3.2; the server may have had another reason as well",
            process=sent.calls[0].process,
            sockets=both_ends(trace_index, socket),
            in_c='dprintf(fd, "GET / HTTP/1.1\\r\\nHost: %s:%d\\r\\n\\r\\n", name, port);',
            in_python='s.sendall(b"GET / HTTP/1.1\\r\\nHost: " + name + b"\\r\\n\\r\\n")',
        )


def http_not_upgraded(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a WebSocket handshake that was answered as if it were any HTTP request."""
    for socket, sent, received, header in _first_requests(trace_index):
        if (
            not _WEBSOCKET.search(header)
            or not _STATUS.match(received.data)
            or _SWITCHES.match(received.data)
        ):
            continue
        client = name_of(trace_index, sent.calls[0].process)
        if _asks_elsewhere(trace_index, sent):
            continue
        peer = peer_socket(trace_index, socket)
        answers = trace_index.sends(peer) if peer is not None else []
        yield Finding(
            "http-not-upgraded",
            "A WebSocket handshake was answered with an ordinary HTTP response",
            f"{capitalized(client)} sent {_first_line(header)} with Upgrade: websocket, and received "
            f"{_first_line(received.data)} in place of 101 Switching Protocols: at this path the server does "
            "not speak WebSocket.",
            "Let the server handle the upgrade: in Node.js server.on('upgrade', ...), or a WebSocket library "
            "that is attached to this server. Check the path and the port of the client, and a proxy "
            "between them, which must pass the fields Connection and Upgrade on.",
            (sent.calls[0].number, received.calls[0].number),
            process=answers[0].process if answers else sent.calls[0].process,
            sockets=both_ends(trace_index, socket),
            in_c='dprintf(c, "HTTP/1.1 101 Switching Protocols\\r\\n%s\\r\\n", fields);',
            in_python="async with websockets.serve(handler, host, port): ...",
        )


def _asks_elsewhere(trace_index: TraceIndex, sent: Turn) -> bool:
    """Return whether the client sent another request later: it can do without WebSocket."""
    first = sent.calls[0]
    return any(
        call.number > first.number and call.process == first.process and _REQUEST.match(call.data)
        for call in trace_index.calls
        if call.name in SENDING and call.size
    )


def _first_requests(trace_index: TraceIndex) -> Iterator[tuple[Socket, Turn, Turn, bytes]]:
    """Yield each client's socket with what it sent and received, and the header of its first request."""
    for socket in trace_index.sockets("stream"):
        if socket.accepted_from is not None or socket.is_wrapped:
            continue
        sent, received = stream_of(trace_index, socket, "sent"), stream_of(trace_index, socket, "received")
        header, blank_line, _ = sent.data.partition(b"\r\n\r\n")
        if blank_line and received.data and _REQUEST.match(header + b"\r\n") is not None:
            yield socket, sent, received, header + b"\r\n"


def _first_line(data: bytes) -> str:
    line = data.partition(b"\r\n")[0]
    return formatting.quoted(line, len(line), _SHOWN)
