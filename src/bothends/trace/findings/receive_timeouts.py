"""A rule about SO_RCVTIMEO (socket(7)) that is shorter than any peer can answer. Pure.

A receive on a blocking socket returns EAGAIN only because of this timeout. Its value has seconds and
microseconds: milliseconds in the latter give a thousandth of what is meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.reading import has_timed_out
from bothends.trace.rendering import formatting

_OPTIONS: Final = ("SO_RCVTIMEO", "SO_RCVTIMEO_OLD")  # strace has both names
_SHORT_NS: Final = 20_000_000  # nanoseconds: shorter than any timeout that is meant


def receive_timeout_tiny(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a receive timeout of a few milliseconds, and a program that got nothing because of it."""
    for socket in trace_index.sockets("stream", "datagram"):
        calls = trace_index.calls_by_socket[socket.number]
        empty = [
            call for call in calls if has_timed_out(call, socket) and call.until and call.duration < _SHORT_NS
        ]
        if not empty or any(call.name in RECEIVING and call.size for call in calls):
            continue
        if not any(trace_index.has_option(socket, option, empty[0].at) for option in _OPTIONS):
            continue
        status = trace_index.process(empty[0].process).status
        if trace_index.ended_at(empty[0].process) is None or not status:
            continue
        name = name_of(trace_index, empty[0].process)
        yield Finding(
            "receive-timeout-tiny",
            "The receive timeout is over before an answer can come",
            f"{capitalized(name)} set SO_RCVTIMEO, and {empty[0].name} returned EAGAIN after only "
            f"{formatting.duration(empty[0].duration)}: nothing was received, and {name} exited with status "
            f"{status}.",
            "tv_usec counts microseconds: for 800 ms set tv_sec = 0 and tv_usec = 800000.",
            tuple(call.number for call in empty[:3]),
            process=empty[0].process,
            sockets=(socket.number,),
            in_c="struct timeval limit = {ms / 1000, ms % 1000 * 1000};",
            in_python="s.settimeout(0.8)  # seconds",
        )
        return
