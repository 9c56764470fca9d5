"""Rules about a message that came in pieces, and a reader that takes each piece for all of it. Pure.

client ── {"items":[...]} of 800,000 bytes ──> server reads it in 14 pieces, none of them is JSON
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.failures import failure_after
from bothends.trace.findings.standstill import Standstill, ThreadState, bytes_text, call_name
from bothends.trace.findings.turns import peer_socket, turns
from bothends.trace.model import Socket
from bothends.trace.rendering import formatting

_SHOWN: Final = 24  # bytes of a message in a text
# JSON objects and arrays begin so; a text in brackets does not.
_JSON_START: Final = re.compile(rb'\s*(?:\{\s*["}]|\[\s*(?:[\[{"\]\d-]|true|false|null))')


def json_split(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program or a thread that failed after it had read the first piece of a JSON value."""
    for socket in trace_index.sockets("stream"):
        receives = [call for call in trace_index.receives(socket) if call.size]
        peer = peer_socket(trace_index, socket)
        if not receives or peer is None or not _JSON_START.match(receives[0].data):
            continue
        read, sends = receives[-1], trace_index.sends(peer)
        message = next((call for call in sends if call.data.startswith(receives[0].data[:64])), None)
        failed = failure_after(trace_index, read)
        if message is None or not failed or len(receives) > 1 or message.size <= read.size:
            continue
        if b"\n" in message.data.rstrip() or read.data[: read.size].endswith((b"\n", b"\0")):
            continue  # lines, of which some may be whole
        name, other = name_of(trace_index, read.process), name_of(trace_index, message.process)
        yield Finding(
            "json-split",
            "A JSON value came in pieces, and the first piece was probably parsed as if it were whole",
            f"{capitalized(other)} sent {formatting.quoted(message.data, message.size, _SHOWN)}, "
            f"{bytes_text(message.size)} of JSON, in one send. {capitalized(name)} got {read.size:,} of "
            f"them in {call_name(read)}, and {failed}. A read, or a 'data' event, returns what has arrived: "
            "a part of a message, or several.",
            "Send a newline after each value, or its length before it. The reader collects what it reads in "
            "a buffer, and parses each whole message in it.",
            (message.number, read.number),
            "inferred",
            "the read returned the beginning of a JSON value, and the reader failed at once",
            process=read.process,
            sockets=(socket.number, peer.number),
            in_c="while ((end = memchr(buffer, '\\n', have)) != NULL) take(buffer, end);",
            in_python='for line in s.makefile("rb"): handle(json.loads(line))   # in Node.js: rest += chunk',
        )


def json_in_pieces(
    trace_index: TraceIndex,
    each: Standstill,
    peer: Socket,
    read: ThreadState,
    state: str,
    events: tuple[int, ...],
) -> Finding | None:
    """Return the finding for a first request of JSON that came in several reads and has no answer; or None.

    Args:
        peer: the end that has read the request.
        read: the thread that waits for more there.
        state: what both ends do, without the end of the sentence.
        events: the evidence of `state`.
    """
    received = [turn for turn in turns(trace_index, peer) if turn.kind == "received"]
    request = received[-1] if received else None
    if request is None or len(request.calls) < 2 or not _JSON_START.match(request.data):
        return None
    last = request.calls[-1]
    if len(last.data) >= last.size and last.data[: last.size].endswith((b"\n", b"\0")):
        return None  # the message has an end, which the reader may look for
    other = name_of(trace_index, read.process)
    sizes = sorted({call.size for call in request.calls})
    span = bytes_text(sizes[-1]) if len(sizes) == 1 else f"{sizes[0]:,} to {bytes_text(sizes[-1])}"
    return Finding(
        "request-ignored",
        "A request came in pieces, and the server has not answered it",
        f"{state}. The request begins as JSON, and came in {len(request.calls)} reads, of {span} each: "
        f"probably {other} parses what each read, or 'data' event, returns, and none of the pieces is whole. "
        "Or it collects them up to a newline, which was not sent.",
        "Send a newline after each value, or its length before it. The reader collects what it reads in a "
        "buffer, and parses each whole message in it: TCP does not preserve message boundaries.",
        events,
        "inferred",
        "JSON in several reads, and no answer",
        process=read.process,
        sockets=(each.socket.number, peer.number),
        in_c="while ((end = memchr(buffer, '\\n', have)) != NULL) take(buffer, end);",
        in_python='for line in s.makefile("rb"): handle(json.loads(line))   # in Node.js: rest += chunk',
    )
