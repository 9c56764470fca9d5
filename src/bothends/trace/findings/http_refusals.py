"""A rule about HTTP/1.1 requests without a Host field (RFC 9112, section 3.2). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.turns import Turn, both_ends, stream_of
from bothends.trace.model import Socket
from bothends.trace.rendering import formatting

_REQUEST: Final = re.compile(rb"([A-Z]{3,10} [^\r\n]{1,2000} HTTP/1\.1)\r\n")
_HOST: Final = re.compile(rb"(?i)\nhost[ \t]*:")
_BAD_REQUEST: Final = re.compile(rb"HTTP/1\.[01] 400[ \r]")
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
