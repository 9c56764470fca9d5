"""The states of TCP sockets (RFC 9293, section 3.3.2), as calls and packets show them. Pure.

What is drawn is what must be true by then: a socket's state is the kernel's, and nobody is told of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.model import Call, Packet, Point, Trace, trim_oldest

# What a FIN that is sent, and one that comes, makes of a state.
_AFTER_FIN_SENT = {"ESTABLISHED": "FIN-WAIT-1", "CLOSE-WAIT": "LAST-ACK", "SYN-RECEIVED": "FIN-WAIT-1"}
_AFTER_FIN_RECEIVED = {
    "ESTABLISHED": "CLOSE-WAIT",
    "FIN-WAIT-1": "CLOSING",
    "FIN-WAIT-2": "TIME-WAIT",
    "SYN-RECEIVED": "CLOSE-WAIT",
}
MAX_CONNECTIONS: Final = 20_000  # connections of which both ends are remembered

# What the acknowledgement of one's own FIN makes of it.
_AFTER_FIN_ACKED = {"FIN-WAIT-1": "FIN-WAIT-2", "CLOSING": "TIME-WAIT", "LAST-ACK": "CLOSED"}


class TcpStateTracker:
    """Follows the state of each socket. A connection that is not accepted yet is counted for its listener,
    and handed over when it is.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._states: dict[tuple[object, object], str] = {}  # by both ends, seen from the first
        self._fins: dict[tuple[object, object], int] = {}

    def transitions(self, point: Point) -> Iterator[tuple[int, str]]:
        """The sockets whose state a moment changes, and their new states."""
        trim_oldest(self._states, MAX_CONNECTIONS)
        trim_oldest(self._fins, MAX_CONNECTIONS)
        match point.event:
            case Call() as call if point.is_end and call.name == "listen" and not call.failed and call.socket:
                socket = self._trace.sockets.get(call.socket)
                if socket is not None and socket.kind != "datagram":
                    yield call.socket, "LISTEN"
            case Packet(protocol="tcp") as packet:
                yield from self._packet_transitions(packet, point)

    def _packet_transitions(self, packet: Packet, point: Point) -> Iterator[tuple[int, str]]:
        """On a wire, what a packet means to its sender it means when it leaves; to its receiver, when it
        arrives, if it does. Elsewhere both are one.
        """
        leaves = not point.is_end and not packet.made
        arrives = (point.is_end or not packet.reaches) and not packet.lost
        out, back = (packet.source, packet.destination), (packet.destination, packet.source)
        changes = []
        mine, theirs = self._states.get(out, ""), self._states.get(back, "")
        if "RST" in packet.flags:
            changes += [(out, packet.sender, "CLOSED"), (back, packet.receiver, "CLOSED")]
        elif "SYN" in packet.flags and "ACK" not in packet.flags:
            changes += [(out, packet.sender, "SYN-SENT")]
            if packet.receiver is not None:
                changes += [(back, packet.receiver, "SYN-RECEIVED")]
        elif "SYN" in packet.flags:
            if theirs in ("SYN-SENT", "SYN-RECEIVED", ""):
                changes += [(back, packet.receiver, "ESTABLISHED")]
            self._states.setdefault(out, "SYN-RECEIVED")
        else:
            if theirs == "SYN-RECEIVED" and arrives:
                changes += [(back, packet.receiver, "ESTABLISHED")]
                theirs = "ESTABLISHED"
            end = (packet.offset or 0) + packet.size
            fin = self._fins.get(back)
            if arrives and fin is not None and (packet.acks or 0) > fin and theirs in _AFTER_FIN_ACKED:
                theirs = _AFTER_FIN_ACKED[theirs]
                changes += [(back, packet.receiver, theirs)]
            if "FIN" in packet.flags:
                if out not in self._fins and mine in _AFTER_FIN_SENT:
                    changes += [(out, packet.sender, _AFTER_FIN_SENT[mine])]
                self._fins.setdefault(out, end)
                if theirs in _AFTER_FIN_RECEIVED and arrives:
                    changes += [(back, packet.receiver, _AFTER_FIN_RECEIVED[theirs])]
        for ends, socket, state in changes:
            if not (leaves if ends == out else arrives):
                continue
            if self._states.get(ends) != state:
                self._states[ends] = state
                if socket is not None:
                    yield socket, state
        if self._states.get(out) == self._states.get(back) == "CLOSED" or ("RST" in packet.flags and arrives):
            for ends in (out, back):
                self._states.pop(ends, None)
                self._fins.pop(ends, None)
