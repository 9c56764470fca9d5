"""A rule about a message that one recv() returned a part of, and whose rest is taken for the next one. Pure.

read of 4              00 30 d4 00     a length: 3,200,000
read of 3,200,000      126,972 bytes   what had arrived
read of 4              "mnop"          a part of the same message, taken for a length
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.framing import binary_lengths
from bothends.trace.findings.reading import has_timed_out
from bothends.trace.findings.standstill import bytes_text
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

_WIDTHS: Final = (2, 4, 8)  # bytes of a binary length
_MAX_DIGITS: Final = 16  # bytes of a length in digits, with spaces


def message_cut_short(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader that asks for a message once, gets a part of it, and reads the next length there."""
    for socket in trace_index.sockets("stream"):
        found = _cut(trace_index, socket)
        if found is None:
            continue
        header, body, following = found
        name = name_of(trace_index, body.process)
        length = header.data[: header.size]
        shown = formatting.quoted(length, header.size, header.size) if length.strip().isdigit() else ""
        yield Finding(
            "message-cut-short",
            "One recv() is taken for a whole message, and its rest for the next message",
            f"{capitalized(name)} read the length {shown or length.hex(' ')} and asked for the "
            f"{bytes_text(body.requested or 0)} that it announces in one {body.name}(), which returned "
            f"{body.size:,}. It did not read the other {(body.requested or 0) - body.size:,} before it went "
            f"on, and {_misread(trace_index, following)}.",
            "TCP has no messages: recv() returns what has arrived. Read in a loop until the message is "
            "complete.",
            (header.number, body.number, following.number),
            process=body.process,
            sockets=(socket.number,),
            in_c="while (n < length && (r = recv(fd, buf + n, length - n, 0)) > 0) n += r;",
            in_python="while len(data) < length and (piece := s.recv(length - len(data))): data += piece",
        )


def _cut(trace_index: TraceIndex, socket: Socket) -> tuple[Call, Call, Call] | None:
    """Return the read of a length, the short read after it, and the read of the next length; or None."""
    reads = [
        call
        for call in trace_index.calls_at(socket.number, *RECEIVING)
        if not call.failed and "MSG_PEEK" not in call.flags
    ]
    for (header, body), (_, following) in pairwise(pairwise(reads)):
        wanted = body.requested or 0
        if not 0 < body.size < wanted or header.requested == wanted or wanted not in _lengths(header):
            continue
        rest = wanted - body.size
        is_next = following.requested == header.requested != rest and following.thread == body.thread
        if is_next and not _waited_in_vain(trace_index, socket, body, following):
            return header, body, following
    return None


def _lengths(header: Call) -> set[int]:
    """Return the lengths of a message that a header may announce, without its own size or with it."""
    data = header.data[: header.size]
    if header.size != header.requested or len(data) != header.size:
        return set()
    values = set[int]()
    if header.size in _WIDTHS:
        values = {*binary_lengths(data)}
    if header.size <= _MAX_DIGITS and data.strip().isdigit():
        values.add(int(data))
    return values | {value - header.size for value in values}


def _waited_in_vain(trace_index: TraceIndex, socket: Socket, body: Call, following: Call) -> bool:
    """Return whether a time limit ended between two reads: `message-abandoned`."""
    return any(
        body.at < call.at < following.at and call.thread == body.thread and has_timed_out(call, socket)
        for call in trace_index.later_calls(body)
    )


def _misread(trace_index: TraceIndex, following: Call) -> str:
    what = f"took the next {bytes_text(following.requested or 0)} for the length of another message"
    if not following.size:
        return what
    text = f"{what}: {formatting.quoted(following.data, following.size, 16)}"
    after = next((call for call in trace_index.later_calls(following) if call.name in RECEIVING), None)
    if after is None or after.requested not in _lengths(following):
        return text
    return f"{text}, so it then asked for {bytes_text(after.requested or 0)}"
