"""A rule about bytes that a buffered stream took from the socket, while the program reads past it. Pure.

A file object reads as much as its buffer holds. Its user takes the header from it, and then the body from the
socket itself: the part of the body that came with the header is in the buffer, and stays there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.framing import binary_lengths
from bothends.trace.findings.http_messages import body_of_whole_request
from bothends.trace.findings.standstill import age, bytes_text, call_name, evidence, standstills
from bothends.trace.findings.turns import turns
from bothends.trace.model import Call

_WIDTHS: Final = (4, 2, 8)  # bytes of a binary length
_LONGEST_LINE: Final = 4_096


class _Message(NamedTuple):
    """A message that came as a whole: the size of its header, and of the body that it announces."""

    header: int
    body: int


def buffered_data_skipped(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader that waits for as many bytes as it took with the header before."""
    for each in standstills(trace_index):
        if each.peer is None or each.unread or each.unread_here:
            continue
        spoken = turns(trace_index, each.socket)
        reader = next((state for state in each.peers if state.waits_for(each.peer.number)), None)
        call = reader.call if reader is not None else None
        if not spoken or spoken[-1].kind != "sent" or reader is None or call is None or not call.requested:
            continue
        reads = _reads_of(each.receives(each.peer), spoken[-1].total)
        found = _taken(spoken[-1].data, spoken[-1].total, reads, call.requested)
        if found is None:
            continue
        taken, body = found
        name, client = name_of(trace_index, reader.process), name_of(trace_index, each.waiter.process)
        yield Finding(
            "buffered-data-skipped",
            "A part of the body is in the buffer of another stream",
            f"{capitalized(name)} read {bytes_text(taken)} of the body together with the header, then asked "
            f"the socket for all of its {bytes_text(body)}: it waits in {call_name(reader)} for "
            f"{age(each, reader)} for bytes that it has in the buffer of its stream already. "
            f"{capitalized(client)} has sent the whole message, and waits in {call_name(each.waiter)}.",
            "Read the header and the body from one stream: a buffered stream (makefile(), fdopen(), "
            "BufferedReader) takes more from the socket than it has returned.",
            evidence(*reads[-2:], reader, each.waiter),
            "inferred",
            "it asks for as many bytes as the body has, and took a part of them with the header",
            process=reader.process,
            sockets=(each.socket.number, each.peer.number),
            in_c="fgets(line, sizeof line, in); fread(body, 1, length, in);  /* not read(fd, ...) */",
            in_python="line = stream.readline(); body = stream.read(length)  # not connection.recv(length)",
        )


def _reads_of(reads: list[Call], size: int) -> list[Call]:
    """Return the last reads that have `size` bytes in all; none if their borders are others."""
    found, total = list[Call](), 0
    for call in reversed(reads):
        found.insert(0, call)
        total += call.size
        if total >= size:
            break
    return found if total == size else []


def _taken(data: bytes, size: int, reads: list[Call], wanted: int) -> tuple[int, int] | None:
    """Return how much of the body was read with the header, and the size of the body; None if nothing was."""
    for message in _messages(data, size):
        total = 0
        for index, call in enumerate(reads):
            total += call.size
            if total < message.header:
                continue
            taken, rest = total - message.header, sum(each.size for each in reads[index + 1 :])
            asked = {each.requested for each in reads[index + 1 :]}
            lacking = message.body - rest
            is_chunk = asked == {wanted} and wanted < lacking
            if 0 < taken <= lacking and (wanted == lacking or is_chunk):
                return taken, message.body
            break
    return None


def _messages(data: bytes, size: int) -> Iterator[_Message]:
    body = body_of_whole_request(data, size)
    if body:
        yield _Message(size - body, body)
    line, newline, _ = data[:_LONGEST_LINE].partition(b"\n")
    numbers = [int(word) for word in line.split() if word.isdigit() and len(word) < 10]
    header = len(line) + len(newline)
    if newline and size - header in numbers:
        yield _Message(header, size - header)
    for width in _WIDTHS:
        lengths = binary_lengths(data[:width])
        if size > width and size - width in lengths:
            yield _Message(width, size - width)
