"""What a thread reads up to, inferred from its reads, and what else could make an end send. Pure."""

from __future__ import annotations

import itertools
from typing import Final

from bothends.trace.capture.calls import RECEIVING, SENDING, WAITING
from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.endpoints import runs
from bothends.trace.findings.standstill import Standstill, ThreadState
from bothends.trace.findings.turns import Turn, turns
from bothends.trace.model import Call, Socket

# The sizes of the reads of buffers that programs read lines from: stdio and Java's 8192, Python's, Node.js's.
_LINE_BUFFERS: Final = {
    "read": frozenset({1, 4096, 8192, 65536, 131072, 262144}),
    "recvfrom": frozenset({1, 8192, 131072, 262144}),
}
_DEFAULT_BUFFERS: Final = frozenset({8192, 16384})
_PYTHON_BUFFERS: Final = frozenset({8192, 131072})  # io.DEFAULT_BUFFER_SIZE; the second one since 3.14


def has_timed_out(call: Call, socket: Socket) -> bool:
    """Return whether a call waited for data of a socket, and its time limit ended before any came.

    A receive on a blocking socket fails with EAGAIN only because of SO_RCVTIMEO (socket(7)).
    """
    if call.name in WAITING:
        return call.result == 0 and bool(call.timeout_ns) and socket.number in call.sockets
    is_receive = call.name in RECEIVING and call.socket == socket.number
    return is_receive and call.error == "EAGAIN" and socket.blocks and "MSG_DONTWAIT" not in call.flags


def fixed_read(each: Standstill, peer: Socket, reader: ThreadState, size: int) -> int:
    """Return how many bytes a reader reads in all, if each read asks for what the one before left; or 0."""
    reads = [call for call in each.receives(peer) if call.thread == reader.thread]
    call = reader.call
    if call is None or not call.requested or not reads or reads[-1].requested is None:
        return 0
    last = reads[-1]
    rest = (last.requested or 0) - last.size
    if call.requested + size in _DEFAULT_BUFFERS:
        return 0  # Java's readAllBytes() fills such a buffer, and reads on
    return call.requested + size if 0 < call.requested == rest < (last.requested or 0) else 0


def buffered_read(
    trace_index: TraceIndex, each: Standstill, peer: Socket, reader: ThreadState, size: int
) -> int:
    """Return the size of a buffer that read(n) of a Python stream fills, if that is what a reader waits in.

    `BufferedReader.read(n)` asks for the room that is left in its buffer, until n bytes are there; a reader
    of lines, or up to EOF, asks for the whole buffer each time. Otherwise 0.
    """
    call = reader.call
    if call is None or call.name != "recvfrom" or not call.requested:
        return 0
    if not runs(trace_index, reader.process, "python"):
        return 0
    whole, filled = call.requested + size, 0
    for read in reversed(each.receives(peer)):
        filled += read.size
        if read.thread != reader.thread or read.requested != whole - max(0, size - filled):
            return 0
        if filled >= size:
            break
    return whole if filled == size and whole in _PYTHON_BUFFERS else 0


def has_read_last(trace_index: TraceIndex, each: Standstill, peer: Socket, spoken: list[Turn]) -> bool:
    """Return whether the last bytes that an end received were sent before its own last ones were read."""
    if len(spoken) < 2 or spoken[-1].kind != "received":
        return False
    of_peer = turns(trace_index, peer)
    return bool(of_peer) and of_peer[-1].kind == "received" and of_peer[-1].total == spoken[-2].total


def size_of_reads(each: Standstill, peer: Socket, reader: ThreadState) -> int | None:
    """Return how many bytes a reader asks for: in the call that waits, or in the one before."""
    if reader.call is not None and reader.call.requested is not None:
        return reader.call.requested
    reads = each.receives(peer)
    return reads[-1].requested if reads else None


def reads_lines(trace_index: TraceIndex, each: Standstill, peer: Socket, reader: ThreadState) -> bool:
    """Return whether a reader seems to read lines: by the size of its reads, or by lines answered before."""
    reads = each.receives(peer)
    name = reader.call.name if reader.call is not None else ""
    if reads and name not in _LINE_BUFFERS:
        name = reads[-1].name
    if size_of_reads(each, peer, reader) in _LINE_BUFFERS.get(name, ()):
        return True
    spoken = turns(trace_index, peer)
    answered = [turn for turn, after in itertools.pairwise(spoken) if after.kind == "sent"]
    return any(turn.kind == "received" and turn.data.endswith(b"\n") for turn in answered)


def watches_only(trace_index: TraceIndex, state: ThreadState, socket: Socket) -> bool:
    """Return whether a thread waits for one connection alone, or in an event loop that serves only it.

    An event loop also has listeners, and a pair of sockets by which it wakes itself.
    """
    if state.activity == "read":
        return True
    if state.activity != "events" or state.has_limit:
        return False
    sockets = trace_index.trace.sockets
    return all(
        number == socket.number or sockets[number].is_listener or _is_own_pair(trace_index, number)
        for number in state.sockets
    )


def _is_own_pair(trace_index: TraceIndex, socket: int) -> bool:
    """Return whether both ends of a socket belong to one process."""
    peer = trace_index.peer_of(socket)
    return peer is not None and trace_index.holders_at(socket).keys() == trace_index.holders_at(peer).keys()


def is_alone(trace_index: TraceIndex, each: Standstill) -> bool:
    """Return whether a server has no other connection, from which it may get something to send."""
    held = {
        socket.number
        for socket in trace_index.sockets("stream")
        if socket.accepted_from is not None
        and each.waiter.process in trace_index.holders_at(socket.number, each.moment.now)
    }
    return held <= {each.socket.number}


def others_may_act(trace_index: TraceIndex, each: Standstill) -> bool:
    """Return whether a keyboard, another thread or another connection may make one of the two ends send."""
    assert each.peer is not None
    server = each.peer if each.socket.accepted_from is None else each.socket
    for socket, state in ((each.socket, each.waiter), *((each.peer, state) for state in each.peers)):
        if state.call is not None and 0 in state.call.descriptors_waited:
            return True
        users = {call.thread for call in trace_index.calls_by_socket[socket.number]}
        for other in each.moment.threads.values():
            if other.process != state.process or other.thread == state.thread:
                continue
            if other.activity == "keyboard":
                return True
            works = other.activity in ("sleep", "run", "child")
            if works and (socket is not server or other.thread in users):
                return True
    return _relays(trace_index, server)


def _relays(trace_index: TraceIndex, server: Socket) -> bool:
    """Return whether a thread of the server read from one connection and then sent on another: a chat."""
    sockets = trace_index.trace.sockets
    for process in {call.process for call in trace_index.calls_by_socket[server.number]}:
        last_read: dict[int, int] = {}  # by thread
        for call in trace_index.calls_by_process[process]:
            if not call.size or call.socket is None or sockets[call.socket].accepted_from is None:
                continue
            if call.name not in SENDING:
                last_read[call.thread] = call.socket
            elif last_read.get(call.thread, call.socket) != call.socket:
                return True
    return False


def beyond_nfds(trace_index: TraceIndex, socket: Socket, state: ThreadState) -> int:
    """Return the first argument of select(), if no descriptor of a socket is below it; otherwise 0."""
    call = state.call
    if call is None or call.name not in ("select", "pselect6") or not call.arguments[:1]:
        return 0
    held = trace_index.holders_at(socket.number).get(state.process, set())
    nfds = int(call.arguments[0]) if call.arguments[0].isdecimal() else 0
    return nfds if held and min(held) >= nfds else 0
