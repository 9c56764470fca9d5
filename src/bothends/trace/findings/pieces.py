"""A rule about a message that came in pieces, and a reader that takes each piece for all of it. Pure.

client ── {"items":[...]} of 800,000 bytes ──> server reads it in 14 pieces, none of them is JSON
"""

from __future__ import annotations

import re
from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import name_of
from bothends.trace.findings.standstill import Standstill, ThreadState, bytes_text
from bothends.trace.findings.turns import turns
from bothends.trace.model import Socket

# JSON objects and arrays begin so; a text in brackets does not.
_JSON_START: Final = re.compile(rb'\s*(?:\{\s*["}]|\[\s*(?:[\[{"\]\d-]|true|false|null))')


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
