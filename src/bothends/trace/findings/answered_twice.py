"""A rule about a request that is repeated on the same connection, and answered twice. Pure.

TCP loses nothing: the first request was not lost, only slow. Both answers come, and from then on each answer
is read as that to the next request. At the end one is left over.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from itertools import pairwise

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.reading import has_timed_out
from bothends.trace.findings.turns import peer_socket
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting


def answered_twice(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client that repeats a request on a connection, and probably mixes up the answers after it."""
    for socket in trace_index.sockets("stream"):
        peer = peer_socket(trace_index, socket)
        if peer is None or socket.accepted_from is not None:
            continue
        found = _repetition(trace_index, socket)
        if found is None:
            continue
        wait, first, second = found
        requests = [call for call in trace_index.sends(socket) if call.at >= first.at]
        answers = [call for call in trace_index.sends(peer) if call.at >= first.at]
        sent = sum(call.size for call in trace_index.sends(peer))
        received = sum(call.size for call in trace_index.receives(socket))
        if len(requests) < 3 or len(answers) < len(requests) or received >= sent:
            continue
        client, server = name_of(trace_index, first.process), name_of(trace_index, answers[0].process)
        yield Finding(
            "answered-twice",
            "A request is repeated on the same connection, and its answers are mixed up with later ones",
            f"{capitalized(client)} waited {formatting.duration(wait.duration)} for the answer to "
            f"{formatting.quoted(first.data, first.size, 24)}, then sent the same request again on the same "
            f"connection, and {server} answered both. {capitalized(client)} went on, and the last answer "
            f"{formatting.quoted(answers[-1].data, answers[-1].size, 24)} was never read: probably each "
            "answer in between was taken for that to the next request.",
            "TCP does not lose a request: wait longer, or close the connection after a timeout and repeat on "
            "a new one. With a number in each request and its answer they cannot be mixed up.",
            (first.number, wait.number, second.number, answers[-1].number),
            certainty="inferred",
            basis="one more answer was sent than was read",
            process=first.process,
            sockets=(socket.number, peer.number),
            in_c="if (n < 0 && errno == EAGAIN) { close(fd); fd = connect_again(); }",
            in_python="except TimeoutError: sock.close(); sock = socket.create_connection(address)",
        )


def _start(call: Call) -> int:
    return call.at


def _repetition(trace_index: TraceIndex, socket: Socket) -> tuple[Call, Call, Call] | None:
    """Return a wait that timed out, and the equal requests before and after it; None if there are none."""
    sends = trace_index.sends(socket)
    concerned: dict[int, list[Call]] = {}  # by process: calls on the socket, by their starts
    for first, second in pairwise(sends):
        if first.data != second.data or first.size != second.size or not first.data:
            continue
        calls = concerned.get(first.process)
        if calls is None:
            calls = concerned[first.process] = sorted(
                (
                    call
                    for call in trace_index.calls_by_process[first.process]
                    if socket.number == call.socket or socket.number in call.sockets
                ),
                key=_start,
            )
        begin = bisect.bisect_right(calls, first.at, key=_start)
        between = calls[begin : bisect.bisect_left(calls, second.at, lo=begin, key=_start)]
        if any(call.name in RECEIVING and call.size for call in between):
            continue
        wait = next((call for call in between if has_timed_out(call, socket)), None)
        if wait is not None:
            return wait, first, second
    return None
