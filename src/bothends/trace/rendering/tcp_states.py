"""Derive the states of TCP sockets (RFC 9293, section 3.3.2) from calls and packets. Pure.

The kernel does not report state changes: the states drawn are those that the calls and packets so far imply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bothends.trace.model import Call, Packet, Point, Trace, trim_oldest

# Transitions when a FIN is sent, and when one is received.
_AFTER_FIN_SENT = {"ESTABLISHED": "FIN-WAIT-1", "CLOSE-WAIT": "LAST-ACK", "SYN-RECEIVED": "FIN-WAIT-1"}
_AFTER_FIN_RECEIVED = {
    "ESTABLISHED": "CLOSE-WAIT",
    "FIN-WAIT-1": "CLOSING",
    "FIN-WAIT-2": "TIME-WAIT",
    "SYN-RECEIVED": "CLOSE-WAIT",
}
MAX_CONNECTIONS: Final = 20_000  # ends of connections to remember

# Transitions when the peer acknowledges the FIN.
_AFTER_FIN_ACKED = {"FIN-WAIT-1": "FIN-WAIT-2", "CLOSING": "TIME-WAIT", "LAST-ACK": "CLOSED"}


class TcpStateTracker:
    """Tracks the state of each socket. Before accept(), the state of a connection is that of the listener."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._states: dict[tuple[object, object], str] = {}  # of the first address, by both addresses
        self._fins: dict[tuple[object, object], int] = {}  # the offset of the FIN, by sender and receiver

    def transitions(self, point: Point) -> Sequence[tuple[int, str]]:
        """Return the sockets whose state a point changes, and their new states."""
        trim_oldest(self._states, MAX_CONNECTIONS)
        trim_oldest(self._fins, MAX_CONNECTIONS)
        match point.event:
            case Call() as call if point.is_end and call.name == "listen" and not call.failed and call.socket:
                socket = self._trace.sockets.get(call.socket)
                if socket is not None and socket.kind != "datagram":
                    return [(call.socket, "LISTEN")]
            case Packet(protocol="tcp") as packet:
                return self._packet_transitions(packet, point)
        return ()

    def _packet_transitions(self, packet: Packet, point: Point) -> Sequence[tuple[int, str]]:
        """Return the transitions of a packet.

        On a wire, the sender changes its state when the packet is sent, the receiver when it arrives. Without
        a wire both happen at the same point.
        """
        is_sent = not point.is_end and not packet.synthesized
        arrives = (point.is_end or not packet.reaches) and not packet.lost
        out, back = (packet.source, packet.destination), (packet.destination, packet.source)
        changes = []
        sender, receiver = self._states.get(out, ""), self._states.get(back, "")
        if "RST" in packet.flags:
            changes += [(out, packet.sender, "CLOSED"), (back, packet.receiver, "CLOSED")]
        elif "SYN" in packet.flags and "ACK" not in packet.flags:
            changes += [(out, packet.sender, "SYN-SENT")]
            if packet.receiver is not None:
                changes += [(back, packet.receiver, "SYN-RECEIVED")]
        elif "SYN" in packet.flags:
            if receiver in ("SYN-SENT", "SYN-RECEIVED", ""):
                changes += [(back, packet.receiver, "ESTABLISHED")]
            self._states.setdefault(out, "SYN-RECEIVED")
        else:
            if receiver == "SYN-RECEIVED" and arrives:
                changes += [(back, packet.receiver, "ESTABLISHED")]
                receiver = "ESTABLISHED"
            end = (packet.offset or 0) + packet.size
            fin = self._fins.get(back)
            if arrives and fin is not None and (packet.acks or 0) > fin and receiver in _AFTER_FIN_ACKED:
                receiver = _AFTER_FIN_ACKED[receiver]
                changes += [(back, packet.receiver, receiver)]
            if "FIN" in packet.flags:
                if out not in self._fins and sender in _AFTER_FIN_SENT:
                    changes += [(out, packet.sender, _AFTER_FIN_SENT[sender])]
                self._fins.setdefault(out, end)
                if receiver in _AFTER_FIN_RECEIVED and arrives:
                    changes += [(back, packet.receiver, _AFTER_FIN_RECEIVED[receiver])]
        if not changes:
            return ()
        found = []
        for ends, socket, state in changes:
            if not (is_sent if ends == out else arrives):
                continue
            if self._states.get(ends) != state:
                self._states[ends] = state
                if socket is not None:
                    found.append((socket, state))
        if self._states.get(out) == self._states.get(back) == "CLOSED" or ("RST" in packet.flags and arrives):
            for ends in (out, back):
                self._states.pop(ends, None)
                self._fins.pop(ends, None)
        return found
