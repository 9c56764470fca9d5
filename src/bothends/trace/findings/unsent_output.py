"""A rule about a program that exits while output is still in its own memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.standstill import bytes_text
from bothends.trace.model import Call
from bothends.trace.rendering import formatting

_PROMPTLY_NS: Final = 200_000_000  # nanoseconds between the send that found no room and the exit


def exited_with_unsent_data(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that got EAGAIN for a part of its output, and exited without sending it."""
    for socket in trace_index.sockets("stream"):
        sends = [call for call in trace_index.calls_by_socket[socket.number] if call.name in SENDING]
        if len(sends) < 2 or not _leaves_a_rest(sends[-2], sends[-1]):
            continue
        last = sends[-1]
        ended, status = trace_index.ended_at(last.process), trace_index.process(last.process).status
        if ended is None or status is None or status < 0 or ended - last.at > _PROMPTLY_NS:
            continue
        if any("RST" in packet.flags for packet in trace_index.packets_to[socket.number]):
            continue
        unsent = (last.requested or 0) - last.size
        name = name_of(trace_index, last.process)
        yield Finding(
            "exited-with-unsent-data",
            "The program exited before all of its output was sent",
            f"{capitalized(name)} exited with status {status} {formatting.duration(ended - last.at)} after a "
            f"send that found the send buffer full: {bytes_text(unsent)} of the "
            f"{bytes_text(last.requested or 0)} that it had left to send were still in its memory, and are "
            "lost.",
            "Exit when everything is sent: in Node.js in the callback of end(), not by process.exit() after "
            "it; with asyncio after await writer.drain() and writer.wait_closed().",
            (sends[-2].number, last.number),
            process=last.process,
            sockets=(socket.number,),
            in_c="while (left > 0) { poll(&(struct pollfd){fd, POLLOUT}, 1, -1); n = send(...); left -= n; }",
            in_python="await writer.drain(); writer.close(); await writer.wait_closed()",
        )


def _leaves_a_rest(before: Call, last: Call) -> bool:
    """Return whether the last send was the rest of a short one, and was not accepted as a whole either."""
    rest = (before.requested or 0) - before.size
    is_short = last.error == "EAGAIN" or last.size < (last.requested or 0)
    return not before.failed and 0 < rest == last.requested and is_short
