"""A rule about messages that came together in one read, of which only the first ones were answered. Pure.

The reader takes one message from its buffer for each read, or for each event. The others stay in the buffer
until more data comes, which the peer does not send before it has the answers.

client ── 00 00 00 02 hi 00 00 00 03 you ──> server reads all 13 bytes, and answers once
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.framing import FRAMINGS
from bothends.trace.findings.reading import others_may_act
from bothends.trace.findings.standstill import age, call_name, evidence, standstills
from bothends.trace.findings.turns import Turn, stream_of
from bothends.trace.model import Call

_MAX_MESSAGES: Final = 1_000  # that are counted


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
        found = _count(sent, answers)
        joined = _read_of_several(each.receives(each.peer), found.ends) if found is not None else None
        if found is None or joined is None or others_may_act(trace_index, each):
            continue
        name, other = name_of(trace_index, each.waiter.process), name_of(trace_index, reader.process)
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


def _count(sent: Turn, answers: Turn) -> _Messages | None:
    """Return the messages in both directions; None if they do not agree, or all are answered."""
    if not sent.calls or not answers.calls:
        return None
    for framing in FRAMINGS:
        sizes, answered = framing.sizes(sent.data, sent.total), framing.sizes(answers.data, answers.total)
        if len(answered) >= 1 and len(sizes) > len(answered) and any(sizes) and any(answered):
            ends = list(itertools.accumulate(framing.width + size for size in sizes[:_MAX_MESSAGES]))
            return _Messages(len(sizes), len(answered), ends, f"each after a length of {framing.width} bytes")
    lines, replies = _lines(sent), _lines(answers)
    first_words = {line.split(maxsplit=1)[0] for line in lines}
    if not replies or len(lines) <= len(replies) or len(first_words) != 1:
        return None
    ends = list(itertools.accumulate(map(len, lines[:_MAX_MESSAGES])))
    return _Messages(len(lines), len(replies), ends, "lines that begin alike")


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
