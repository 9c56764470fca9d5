"""The bytes of a stream, and the turns of a conversation: what rules about framing look at. Pure.

A turn is what one end sends until it receives, or receives until it sends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from bothends.trace.capture.calls import MOVING, RECEIVING, SENDING
from bothends.trace.findings.base import TraceIndex
from bothends.trace.model import Call, Socket

MAX_DATA: Final = 65_536  # bytes of a turn that are put together


@dataclass(slots=True)
class Turn:
    """Consecutive sends or receives of one socket.

    `data` are the first bytes, up to the first one that the trace does not hold, and `MAX_DATA` or a little
    more at most; `total` counts all of them.
    """

    kind: Literal["sent", "received"]
    calls: list[Call] = field(default_factory=list)
    data: bytes = b""
    total: int = 0

    def add(self, call: Call) -> None:
        """Append a call that has moved data."""
        if len(self.data) == self.total and self.total < MAX_DATA:
            self.data += call.data[: call.size]
        self.calls.append(call)
        self.total += call.size

    def extend(self, turn: Turn) -> None:
        """Append the calls of another turn."""
        if len(self.data) == self.total and self.total < MAX_DATA:
            for call in turn.calls:
                self.add(call)
        else:
            self.calls += turn.calls
            self.total += turn.total


def turns(trace_index: TraceIndex, socket: Socket) -> list[Turn]:
    """Return the turns of a connection, as one of its sockets shows them.

    A thread may wait in a receive while another one sends: a receive counts when it ends, in causal order.
    All rules share the result: don't change it.
    """
    found: list[Turn] | None = trace_index.shared.get(("turns", socket.number))
    if found is None:
        found = trace_index.shared["turns", socket.number] = _turns(trace_index, socket)
    return found


def _turns(trace_index: TraceIndex, socket: Socket) -> list[Turn]:
    found: list[Turn] = []
    for call in trace_index.in_causal_order(socket.number):
        if not call.size or call.error or call.name not in MOVING or "MSG_PEEK" in call.flags:
            continue
        kind: Literal["sent", "received"] = "sent" if call.name in SENDING else "received"
        if found and found[-1].kind == kind:
            found[-1].add(call)
        else:
            found.append(Turn(kind, [call], call.data[: call.size], call.size))
    return found


def stream_of(trace_index: TraceIndex, socket: Socket, kind: Literal["sent", "received"]) -> Turn:
    """Return everything that a socket sent or received, as one turn. All rules share it: don't change it."""
    whole: Turn | None = trace_index.shared.get((kind, socket.number))
    if whole is None:
        whole = trace_index.shared[kind, socket.number] = Turn(kind)
        for turn in turns(trace_index, socket):
            if turn.kind == kind:
                whole.extend(turn)
    return whole


def peer_socket(trace_index: TraceIndex, socket: Socket) -> Socket | None:
    """Return the socket at the other end of a connection, if it is traced."""
    number = trace_index.peer_of(socket.number)
    return trace_index.trace.sockets.get(number) if number is not None else None


def both_ends(trace_index: TraceIndex, socket: Socket) -> tuple[int, ...]:
    """Return the number of a socket, and that of the socket at the other end if it is traced."""
    peer = trace_index.peer_of(socket.number)
    return (socket.number,) if peer is None else (socket.number, peer)


def close_of(trace_index: TraceIndex, socket: Socket) -> Call | None:
    """Return the first call by which a program closed a connection, or the writing side of it."""
    for call in trace_index.calls_at(socket.number, "close", "shutdown"):
        if call.failed or call.result is None:
            continue
        if call.name == "close" or (call.name == "shutdown" and call.arguments[1:2] != ("SHUT_RD",)):
            return call
    return None


def ended_without_reading(trace_index: TraceIndex, socket: Socket, after: Call) -> bool:
    """Return whether the process of a read did not read, wait for or send on the socket again."""
    following = trace_index.next_call(after)
    while following is not None and following.name in ("getsockopt", "setsockopt", "fcntl", "ioctl"):
        following = trace_index.next_call(following)
    if following is not None:
        return following.name in ("close", "shutdown")
    return trace_index.ended_at(after.process) is not None


def is_waiting_to_read(trace_index: TraceIndex, socket: Socket) -> Call | None:
    """Return the call that waits for data of a socket at the end of the trace, or None."""
    for call in reversed(trace_index.calls):
        concerns = call.socket == socket.number or socket.number in call.sockets
        if concerns and call.until is None and (call.name in RECEIVING or socket.number in call.sockets):
            return call
    return None
