"""Rules about HTTP answers that are not what they say, and requests whose form a server does not take. Pure.

client ── GET / HTTP/1.1 ──────────────────────> server
client <── Hello from my server ────────────── server    http-not-answered-in-http
client <── Content-Encoding: gzip, {"a": 1} ── server    http-encoding-wrong
client <── 431 ─────────────────────────────── server    http-header-too-large
client ── Transfer-Encoding: chunked ──────────> server
client <── FIN ─────────────────────────────── server    http-chunks-not-read
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of, runs_node
from bothends.trace.findings.exits import PROMPT_EXIT_NS
from bothends.trace.findings.standstill import bytes_text
from bothends.trace.findings.turns import Turn, both_ends, peer_socket, stream_of
from bothends.trace.model import Call, Socket
from bothends.trace.protocols.tls_records import is_record
from bothends.trace.rendering import formatting

_REQUEST: Final = re.compile(rb"[A-Z]{3,10} [^\r\n]{1,100000} HTTP/1\.[01]\r\n")
_STATUS_LINE: Final = b"HTTP/1."
_TOO_LARGE: Final = re.compile(rb"HTTP/1\.[01] (?:431|414)[ \r]")
_GZIP: Final = re.compile(rb"(?i)\r\ncontent-encoding:[ \t]*(?:x-)?gzip[ \t]*\r\n")
_CHUNKED: Final = re.compile(rb"(?i)\r\ntransfer-encoding:[^\r\n]*chunked[ \t]*\r\n")
_GZIP_MAGIC: Final = b"\x1f\x8b"
_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,8}[^\r\n]{0,100}\r\n")
_SHOWN: Final = 40  # bytes in a text


def _exchanges(trace_index: TraceIndex) -> Iterator[tuple[Socket, Turn, Turn, bytes]]:
    """Yield each socket on which HTTP is asked, what it sent and received, and the header of the request."""
    for socket in trace_index.sockets("stream"):
        if socket.accepted_from is not None or socket.is_wrapped:
            continue
        sent = stream_of(trace_index, socket, "sent")
        if sent.calls and _REQUEST.match(sent.data) is not None:
            header = sent.data.partition(b"\r\n\r\n")[0] + b"\r\n"
            yield socket, sent, stream_of(trace_index, socket, "received"), header


def http_not_answered_in_http(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an answer to an HTTP request that has no status line, and a client that failed with it."""
    for socket, sent, received, _ in _exchanges(trace_index):
        start = received.data[: len(_STATUS_LINE)]
        if (
            not received.calls
            or not start
            or is_record(received.data)
            or _STATUS_LINE.startswith(start)
            or start == _STATUS_LINE
        ):
            continue
        read = received.calls[0]
        ended, status = trace_index.ended_at(read.process), trace_index.process(read.process).status
        if not status or status < 0 or ended is None or ended - (read.until or read.at) > PROMPT_EXIT_NS:
            continue
        client, server = name_of(trace_index, read.process), _server_name(trace_index, socket)
        yield Finding(
            "http-not-answered-in-http",
            "The answer to an HTTP request is not HTTP",
            f"{capitalized(client)} sent {_first_line(sent.data)}, and {server} answered "
            f"{formatting.quoted(received.data, received.total, _SHOWN)}: a response begins with a status "
            f"line, as in HTTP/1.1 200 OK. {capitalized(client)} exited with status {status}.",
            "Answer with a status line, the fields and an empty line before the body (RFC 9112, section 4), "
            "or use an HTTP library. If the server has a protocol of its own, connect without HTTP.",
            (sent.calls[0].number, read.number),
            process=_answering(trace_index, socket, read),
            sockets=both_ends(trace_index, socket),
            in_c='dprintf(c, "HTTP/1.1 200 OK\\r\\nContent-Length: %zu\\r\\n\\r\\n%s", strlen(s), s);',
            in_python='c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(s), s))',
        )


def http_encoding_wrong(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a response that says gzip, with a body that is none."""
    for socket, sent, received, _ in _exchanges(trace_index):
        header, blank_line, body = received.data.partition(b"\r\n\r\n")
        if not blank_line or not header.startswith(_STATUS_LINE) or not _GZIP.search(header + b"\r\n"):
            continue
        if sent.data.startswith(b"HEAD "):
            continue
        if _CHUNKED.search(header + b"\r\n"):
            size = _CHUNK_SIZE.match(body)
            body = body[size.end() :] if size is not None else b""
        if len(body) < len(_GZIP_MAGIC) or body.startswith(_GZIP_MAGIC):
            continue
        client, server = name_of(trace_index, received.calls[0].process), _server_name(trace_index, socket)
        yield Finding(
            "http-encoding-wrong",
            "A response says that its body is gzip, and it is not",
            f"{capitalized(server)} answered {_first_line(sent.data)} with Content-Encoding: gzip, and the "
            f"body begins with {formatting.quoted(body, len(body), 16)}. gzip begins with 1f 8b, so {client} "
            "cannot decode it.",
            "Compress the body, or leave Content-Encoding out. A proxy that passes on a body that its "
            "library has decoded must remove the field, and Content-Length with it.",
            (sent.calls[0].number, received.calls[0].number),
            process=_answering(trace_index, socket, received.calls[0]),
            sockets=both_ends(trace_index, socket),
            in_python="body = gzip.compress(body)   # or send no Content-Encoding",
        )


def http_header_too_large(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a request whose header or target was too large for the server."""
    for socket, sent, received, header in _exchanges(trace_index):
        if not _TOO_LARGE.match(received.data):
            continue
        client, server = name_of(trace_index, sent.calls[0].process), _server_name(trace_index, socket)
        is_whole = b"\r\n\r\n" in sent.data
        size = (
            f"a header of {bytes_text(len(header) + 2)}"
            if is_whole
            else f"a request of {bytes_text(sent.total)}"
        )
        names = [line.partition(b":")[0] for line in sorted(header.split(b"\r\n"), key=len)[-1:]]
        longest = formatting.quoted(names[0], len(names[0]), _SHOWN)
        yield Finding(
            "http-header-too-large",
            "The header of an HTTP request is larger than the server accepts",
            f"{capitalized(client)} sent {size}, the longest line of it begins with {longest}, and {server} "
            f"answered {_first_line(received.data)}.",
            "Send less in the header: put data into the body, and keep cookies small. Or raise the limit of "
            "the server: --max-http-header-size of Node.js (16 KiB), large_client_header_buffers of nginx.",
            (sent.calls[0].number, received.calls[0].number),
            process=sent.calls[0].process,
            sockets=both_ends(trace_index, socket),
        )


def http_chunks_not_read(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that closed the connection in place of a response to a request in chunks."""
    for socket, sent, received, header in _exchanges(trace_index):
        peer = peer_socket(trace_index, socket)
        if received.total or peer is None or not _CHUNKED.search(header) or b"\r\n\r\n" not in sent.data:
            continue
        calls = trace_index.calls_by_socket[peer.number]
        reads = [call for call in trace_index.receives(peer) if call.size]
        got_eof = any(call.name in RECEIVING and call.result == 0 and call.requested for call in calls)
        close = next((call for call in calls if call.name in ("close", "shutdown") and not call.failed), None)
        if not reads or got_eof or close is None or trace_index.sends(peer):
            continue
        outcome = next(
            (
                call
                for call in trace_index.calls_by_socket[socket.number]
                if call.name in RECEIVING and (call.result == 0 or call.error == "ECONNRESET")
            ),
            None,
        )
        if outcome is None or (outcome.until or outcome.at) < close.at:
            continue
        client, server = name_of(trace_index, sent.calls[0].process), name_of(trace_index, close.process)
        of_node = " Node.js sends chunks when Content-Length is not set." * runs_node(
            trace_index, sent.calls[0].process
        )
        yield Finding(
            "http-chunks-not-read",
            "A request with a body in chunks got no response",
            f"{capitalized(client)} sent {_first_line(sent.data)} with Transfer-Encoding: chunked and "
            f"without Content-Length, and {server} closed the connection "
            f"{formatting.duration(max(0, close.at - (reads[-1].until or reads[-1].at)))} after it had read "
            f"{bytes_text(sum(call.size for call in reads))} of it: probably it looks for Content-Length "
            f"only.{of_node}",
            "Send Content-Length with the request, or let the server read chunks: HTTP/1.1 requires it "
            "(RFC 9112, section 7.1).",
            (sent.calls[0].number, reads[-1].number, close.number),
            "inferred",
            "the body is in chunks, and no response was sent",
            process=close.process,
            sockets=both_ends(trace_index, socket),
            in_c="while ((size = read_chunk_size(fd)) > 0) read_exactly(fd, chunk, size + 2);",
            in_python='if self.headers["Transfer-Encoding"] == "chunked": ...   # no Content-Length then',
        )


def _server_name(trace_index: TraceIndex, socket: Socket) -> str:
    peer = peer_socket(trace_index, socket)
    sends = trace_index.sends(peer) if peer is not None else []
    return name_of(trace_index, sends[0].process) if sends else "the server"


def _answering(trace_index: TraceIndex, socket: Socket, read: Call) -> int:
    """Return the process that sent the answer, or the one that read it if that is not traced."""
    peer = peer_socket(trace_index, socket)
    sends = trace_index.sends(peer) if peer is not None else []
    return sends[0].process if sends else read.process


def _first_line(data: bytes) -> str:
    line = data.partition(b"\r\n")[0]
    return formatting.quoted(line, len(line), _SHOWN)
