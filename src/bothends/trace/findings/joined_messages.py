"""Rules about messages that came together in one read, and a reader that expects one. Pure.

The reader takes one message from its buffer for each read, or for each event. The others stay in the buffer
until more data comes, which the peer does not send before it has the answers. Or the reader takes all of them
for one message, and fails.

client ── 00 00 00 02 hi 00 00 00 03 you ──> server reads all 13 bytes, and answers once
server ── {"id":1}{"id":2} ────────────────> client reads all 16 bytes, and its parser fails
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Final, NamedTuple

from bothends.trace.capture.calls import WAITING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.failures import failure_after
from bothends.trace.findings.framing import FRAMINGS
from bothends.trace.findings.reading import others_may_act
from bothends.trace.findings.standstill import (
    Standstill,
    ThreadState,
    age,
    bytes_text,
    call_name,
    evidence,
    standstills,
)
from bothends.trace.findings.turns import Turn, stream_of
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

_MAX_MESSAGES: Final = 1_000  # that are counted
_SHOWN: Final = 24  # bytes of a message in a text
_ANY_LINES: Final = "lines"
_DECODER: Final = json.JSONDecoder()
_STREAM_BUFFERS: Final = frozenset({4096, 8192, 131072})  # stdio's, Java's and Python's
_LOOP_BUFFERS: Final = frozenset({65536, 262144})  # of Node.js and asyncio, for lines and anything else


class _Messages(NamedTuple):
    """How many messages were sent and answered, where each one ends, and how they are framed."""

    sent: int
    answered: int
    ends: list[int]
    framing: str


def messages_unanswered(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader that answered fewer messages than it has read, while both ends wait for more."""
    for each in standstills(trace_index):
        if each.peer is None or each.unread or each.unread_here or each.waiter.has_limit:
            continue
        reader = next((state for state in each.peers if state.waits_for(each.peer.number)), None)
        is_client = each.socket.accepted_from is None
        if reader is None or not is_client or not each.waiter.waits_for(each.socket.number):
            continue
        sent, answers = (
            stream_of(trace_index, each.socket, "sent"),
            stream_of(trace_index, each.socket, "received"),
        )
        is_selecting = reader.call is not None and reader.call.name in WAITING
        found = _count(sent, answers, any_lines=is_selecting and each.waiter.activity == "read")
        joined = _read_of_several(each.receives(each.peer), found.ends) if found is not None else None
        if found is None or joined is None or others_may_act(trace_index, each):
            continue
        if found.framing == _ANY_LINES and joined.requested not in _STREAM_BUFFERS:
            continue
        name, other = name_of(trace_index, each.waiter.process), name_of(trace_index, reader.process)
        if found.framing == _ANY_LINES:
            yield _line_in_buffer(each, each.peer, found, joined, reader, name, other)
            continue
        answer = "answer" if found.answered == 1 else "answers"
        yield Finding(
            "messages-unanswered",
            "Messages that came together are not all answered",
            f"{capitalized(name)} sent {found.sent} messages ({found.framing}). {capitalized(other)} has "
            f"read all of them, several in one {joined.name}(), and sent {found.answered} {answer}. Now each "
            f"end waits for the other, {name} in {call_name(each.waiter)} for {age(each, each.waiter)}: "
            f"probably {other} takes one message for each read, and the rest is in its buffer.",
            "After each read, take messages from the buffer in a loop, until no whole one is left.",
            evidence(sent.calls[-1], joined, answers.calls[-1], each.waiter),
            "inferred",
            "both directions consist of whole messages, and there are fewer answers",
            process=reader.process,
            sockets=(each.socket.number, each.peer.number),
            in_c="while (have >= 4 && have - 4 >= (n = length_of(buffer))) take(buffer, n);",
            in_python="while (message := take(buffer)) is not None: answer(message)   # not: if",
        )


def json_joined(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program or a thread that failed after it had read several JSON values at once."""
    done = set[int]()  # processes
    for socket in trace_index.sockets("stream"):
        receives = [call for call in trace_index.receives(socket) if call.size]
        if not receives or receives[-1].process in done:
            continue
        read = receives[-1]
        values = _json_values(read.data) if read.size == len(read.data) else []
        failed = failure_after(trace_index, read) if len(values) > 1 else ""
        senders = trace_index.senders_of(read)
        has_newlines = b"\n" in read.data.strip()
        if not failed or not senders or _took_several(trace_index, socket, read):
            continue
        if has_newlines and read.requested in _STREAM_BUFFERS | _LOOP_BUFFERS:
            continue  # probably it reads lines, and failed for another reason
        done.add(read.process)
        name, other = name_of(trace_index, read.process), name_of(trace_index, senders[0].process)
        first, second = (formatting.quoted(each, len(each), _SHOWN) for each in values[:2])
        yield Finding(
            "json-joined",
            "Several JSON values came in one read, and were probably parsed as one",
            f"{capitalized(other)} sent {len(values)} JSON values "
            f"{'with newlines' if has_newlines else 'without anything'} between them, {first}, "
            f"{second}{' and so on' if len(values) > 2 else ''}. {capitalized(name)} got all of them in "
            f"{call_name(read)}, {bytes_text(read.size)}, and {failed}. A read, or a 'data' event, returns "
            "what has arrived: a part of a message, or several.",
            ("" if has_newlines else "End each value with a newline, or send its length before it. ")
            + "The reader collects what it reads in a buffer, and parses each whole message in it.",
            evidence(*senders[:3], read),
            "inferred",
            "each value is whole JSON, all of them together are none, and the reader failed at once",
            process=read.process,
            sockets=(socket.number,),
            in_c="while ((end = memchr(buffer, '\\n', have)) != NULL) take(buffer, end);",
            in_python='for line in s.makefile("rb"): handle(json.loads(line))  # newline after each',
        )


def _json_values(data: bytes) -> list[bytes]:
    """Return the JSON objects and arrays of which bytes consist, with white space between them at most."""
    text, values, at = data.decode("utf-8", "replace"), list[bytes](), 0
    while at < len(text) and len(values) < _MAX_MESSAGES:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return []
        if not isinstance(value, dict | list):
            return []
        values.append(text[at:end].encode())
        at = end + len(text[end:]) - len(text[end:].lstrip())
    return values


def _took_several(trace_index: TraceIndex, socket: Socket, read: Call) -> bool:
    """Return whether several values that came in one read before did no harm: the reader splits them."""
    earlier = [call for call in trace_index.receives(socket) if call.number != read.number]
    return any(len(_json_values(call.data)) > 1 for call in earlier)


def _line_in_buffer(
    each: Standstill, peer: Socket, found: _Messages, joined: Call, reader: ThreadState, name: str, other: str
) -> Finding:
    return Finding(
        "messages-unanswered",
        "A line probably waits in the reader's own buffer, where select() cannot see it",
        f"{capitalized(name)} sent {found.sent} lines, and {other} read several of them in one "
        f"{call_name(joined)}, sent {found.answered} of {found.sent} answers and waits in "
        f"{call_name(reader)} for more data. {capitalized(name)} waits in {call_name(each.waiter)} for "
        f"{age(each, each.waiter)}. "
        f"A buffered stream takes all that is there: probably {other} takes one line of it and then asks "
        "the kernel, whose buffer is empty.",
        "Before you wait in select(), take every whole line from the buffer; or read with recv() into a "
        "buffer of your own.",
        evidence(joined, reader, each.waiter),
        "inferred",
        "fewer answers than lines, and a reader that waits in poll() after a read through a stream's buffer",
        process=reader.process,
        sockets=(each.socket.number, peer.number),
        in_c="while ((end = memchr(buffer, '\\n', have)) != NULL) take(buffer, end);  /* then poll() */",
        in_python="buffer += s.recv(4096)\nwhile b'\\n' in buffer: line, buffer = buffer.split(b'\\n', 1)",
    )


def _count(sent: Turn, answers: Turn, *, any_lines: bool = False) -> _Messages | None:
    """Return the messages in both directions; None if they do not agree, or all are answered.

    `any_lines`: lines count even if they begin differently.
    """
    if not sent.calls or not answers.calls:
        return None
    for framing in FRAMINGS:
        sizes, answered = framing.sizes(sent.data, sent.total), framing.sizes(answers.data, answers.total)
        if len(answered) >= 1 and len(sizes) > len(answered) and any(sizes) and any(answered):
            ends = list(itertools.accumulate(framing.width + size for size in sizes[:_MAX_MESSAGES]))
            return _Messages(len(sizes), len(answered), ends, f"each after a length of {framing.width} bytes")
    lines, replies = _lines(sent), _lines(answers)
    first_words = {line.split(maxsplit=1)[0] for line in lines}
    if not replies or len(lines) <= len(replies) or (len(first_words) != 1 and not any_lines):
        return None
    ends = list(itertools.accumulate(map(len, lines[:_MAX_MESSAGES])))
    kind = "lines that begin alike" if len(first_words) == 1 else _ANY_LINES
    return _Messages(len(lines), len(replies), ends, kind)


def _lines(turn: Turn) -> list[bytes]:
    """Return the lines of a stream, with their ends; none if it does not consist of whole lines."""
    is_whole = len(turn.data) == turn.total and turn.data.endswith(b"\n")
    lines = turn.data.splitlines(keepends=True) if is_whole else []
    return lines if all(line.strip() for line in lines) else []


def _read_of_several(reads: list[Call], ends: list[int]) -> Call | None:
    """Return the last read that held the end of a message and more after it."""
    at, found = 0, None
    for call in reads:
        if any(at < end < at + call.size for end in ends):
            found = call
        at += call.size
    return found
