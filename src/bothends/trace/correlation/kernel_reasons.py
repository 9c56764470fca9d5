"""Join what the kernel did, and its reason, to packets, sockets and calls. Pure.

    KernelEventMatcher   during a run: which socket and which packet an event of the kernel concerns
    KernelReasons        afterwards: the event that concerns a packet or a socket

1. Most events have the addresses of the packet. The packet is the newest one between them that was captured
   by then.
2. The drop of a packet may come without addresses. Over the loopback interface the kernel processes a packet
   within the call that sent it. So a drop that interrupts a send of a traced thread, just after a packet of
   that socket, concerns that packet. Any other drop without addresses is ignored, because it may be that of a
   packet of any process.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from bothends.trace.capture.calls import SENDING
from bothends.trace.model import Call, KernelEvent, Packet, Point, Socket, SocketAddress, trim_oldest

MAX_REMEMBERED: Final = 10_000  # packets and calls
# Nanoseconds between a packet and what the kernel does with it, on a busy machine; and between two clocks.
NEARBY_NS: Final = 20_000_000
CLOCK_SKEW_NS: Final = 200_000

_AddressPair: TypeAlias = tuple[SocketAddress, SocketAddress]

# The calls that send a packet; to a loopback address the kernel also receives it within the call.
_SENDING_CALLS: Final = SENDING | {"connect", "close", "shutdown"}


class KernelEventMatcher:
    """Finds the socket and the packet of events of the kernel, while points are emitted in order.

    Args:
        sockets_of: returns the sockets that send and receive a packet.
        is_relevant: returns whether a packet belongs to a traced socket.
    """

    def __init__(
        self,
        sockets_of: Callable[[Packet], tuple[Socket | None, Socket | None]],
        is_relevant: Callable[[Packet], bool],
    ) -> None:
        self._sockets_of = sockets_of
        self._is_relevant = is_relevant
        self._packets: OrderedDict[_AddressPair, Packet] = OrderedDict()  # the newest of each direction
        self._sent_by: dict[int, Packet] = {}  # the newest packet, by the socket that sent it
        self._calls: dict[int, Call] = {}  # the newest call, by thread

    def observe(self, point: Point) -> None:
        """Take note of a packet or a call that has been emitted."""
        event, is_end = point
        if is_end:
            return
        if type(event) is Call:
            self._calls.pop(event.thread, None)
            self._calls[event.thread] = event
            if len(self._calls) > MAX_REMEMBERED:
                trim_oldest(self._calls, MAX_REMEMBERED)
        elif isinstance(event, Packet):
            ends = event.source, event.destination
            self._packets.pop(ends, None)
            self._packets[ends] = event
            if len(self._packets) > MAX_REMEMBERED:
                self._packets.popitem(last=False)
            if event.sender is not None:
                self._sent_by[event.sender] = event
                trim_oldest(self._sent_by, MAX_REMEMBERED)

    def match(self, event: KernelEvent) -> bool:
        """Set the socket and the packet of an event. Returns False if it does not concern the trace."""
        if event.thread not in self._calls:  # not of a traced thread
            event.thread = 0
        if event.source is None or event.destination is None:
            return self._match_by_call(event)
        probe = Packet(0, event.at, event.protocol or "tcp", event.source, event.destination, 0, b"")
        if not self._is_relevant(probe):
            return False
        sender, receiver = self._sockets_of(probe)
        at_sender = event.kind in ("reset-sent", "retransmit")
        socket = (sender or receiver) if at_sender else (receiver or sender)
        event.socket = socket.number if socket is not None else None
        packet = self._packets.get((event.source, event.destination))
        if packet is not None and event.kind != "error" and _is_near(packet, event):
            event.packet = packet.number
        return True

    def _match_by_call(self, event: KernelEvent) -> bool:
        call = self._calls.get(event.thread)
        if call is None or call.socket is None or call.name not in _SENDING_CALLS:
            return False
        packet = self._sent_by.get(call.socket)
        if call.until is not None and event.at > call.until + CLOCK_SKEW_NS:
            return False  # strace and tracefs measure the end of a call with different clocks
        if packet is None or packet.at < call.at - CLOCK_SKEW_NS or not _is_near(packet, event):
            return False
        event.protocol, event.packet = packet.protocol, packet.number
        event.source, event.destination = packet.source, packet.destination
        event.socket = packet.receiver if packet.receiver is not None else packet.sender
        return True


def _is_near(packet: Packet, event: KernelEvent) -> bool:
    return -CLOCK_SKEW_NS <= event.at - packet.at <= NEARBY_NS


class KernelReasons:
    """Finds the events of the kernel that concern a packet or a socket."""

    def __init__(self, events: Iterable[KernelEvent]) -> None:
        self._by_packet: dict[int, list[KernelEvent]] = defaultdict(list)
        self._by_ends: dict[_AddressPair, list[KernelEvent]] = defaultdict(list)
        self._by_socket: dict[int, list[KernelEvent]] = defaultdict(list)
        for event in events:
            if event.packet is not None:
                self._by_packet[event.packet].append(event)
            if event.source is not None and event.destination is not None:
                self._by_ends[event.source, event.destination].append(event)
            if event.socket is not None:
                self._by_socket[event.socket].append(event)

    def find(self, cause: Packet | Socket, *kinds: str) -> KernelEvent | None:
        """Return what happened to a packet, or last at a socket; of these kinds, if given."""
        if isinstance(cause, Socket):
            return self._newest(self._by_socket.get(cause.number, ()), kinds)
        found = self._newest(self._by_packet.get(cause.number, ()), kinds)
        if found is not None or "RST" not in cause.flags:
            return found
        # The kernel reports a RST before or after it sends it.
        near = [
            each
            for each in self._by_ends.get((cause.source, cause.destination), ())
            if each.kind.startswith("reset") and abs(each.at - cause.at) <= NEARBY_NS
        ]
        return self._newest(sorted(near, key=lambda each: bool(each.reason)), kinds)

    @staticmethod
    def _newest(events: Iterable[KernelEvent], kinds: tuple[str, ...]) -> KernelEvent | None:
        found = None
        for event in events:
            if not kinds or event.kind in kinds:
                found = event
        return found
