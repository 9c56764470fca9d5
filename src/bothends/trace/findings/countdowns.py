"""A rule about select(), which counts its time limit down. Pure.

On Linux select(2) stores the time that is left in its timeout. A program that sets it once, before its loop,
waits less each time, and in the end not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bothends.trace.capture.calls import SELECTS
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.model import Call
from bothends.trace.rendering import formatting

_MIN_EMPTY: Final = 5  # calls in a row without a time limit left; a program that counts down itself stops
_SLACK_NS: Final = 50_000_000  # nanoseconds between what strace sees and what the kernel counts


@dataclass(slots=True)
class _Countdown:
    """Calls in a row of one thread, each with the time that the one before left."""

    first: Call
    last: Call
    following: Call | None = None
    empty: list[Call] = field(default_factory=list)  # the first ones that had no time left


def timeout_used_up(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a timeout of select() that is set once, before a loop."""
    current: dict[int, _Countdown] = {}
    for call in trace_index.calls_named(*SELECTS):
        if call.timeout_ns is None:
            continue
        countdown = current.get(call.thread)
        if countdown is None or not _continues(countdown.last, call):
            current[call.thread] = _Countdown(call, call)
            continue
        countdown.last = call
        countdown.following = countdown.following or call
        if call.timeout_ns or call.result != 0 or not countdown.first.timeout_ns:
            continue
        if len(countdown.empty) < _MIN_EMPTY:
            countdown.empty.append(call)
            if len(countdown.empty) == _MIN_EMPTY:
                yield _finding(trace_index, countdown)


def _continues(before: Call, call: Call) -> bool:
    """Return whether a call has the time that the one before left."""
    assert before.timeout_ns is not None
    assert call.timeout_ns is not None
    left = max(0, before.timeout_ns - before.duration)
    if not before.timeout_ns:
        return call.timeout_ns == 0
    return call.timeout_ns < before.timeout_ns and abs(left - call.timeout_ns) <= _SLACK_NS


def _finding(trace_index: TraceIndex, countdown: _Countdown) -> Finding:
    first, following = countdown.first, countdown.following or countdown.last
    name = name_of(trace_index, first.process)
    limit = formatting.duration(first.timeout_ns or 0)
    return Finding(
        "timeout-used-up",
        "select() counts its timeout down, and the program does not set it again",
        f"{capitalized(name)} called select() with a timeout of {limit}, then of "
        f"{formatting.duration(following.timeout_ns or 0)}, what was left of it, and at last of 0: it "
        f"returned at once {len(countdown.empty)} times in a row, and no time passed.",
        "Set the timeval before each call: on Linux select() stores the time that is left in it (select(2)). "
        "poll() does not change its timeout.",
        (first.number, following.number, *(each.number for each in countdown.empty[:3])),
        process=first.process,
        sockets=first.sockets,
        in_c="for (;;) { struct timeval limit = {1, 0}; n = select(highest + 1, &set, NULL, NULL, &limit); }",
        in_python="",
    )
