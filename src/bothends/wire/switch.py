"""Forward packets between ports, and apply the toxics. No I/O; clock and random numbers are passed in.

    receive() ──> link control? receiver? MTU? ──> one pipeline per link ──> packets to write, and where

1. Each link, from one port to another, has its own pipeline and its own random numbers: the packets of one
   host never change what happens to another host's packets.
2. The same packets in the same order on a link get the same decisions, whenever they arrive: toxics draw for
   each packet, not by the clock.
3. The wire's MTU is that of a router before the link: larger packets are fragmented, or answered with an
   ICMP error to the sender. With `icmp=False` they vanish: a black hole (RFC 2923 section 2.1).
4. Without toxics and observer, frames may be forwarded unchanged (`offload.py`): `fast_forward`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from bothends.errors import ToxicError
from bothends.toxics.base import DROP, Decision, Medium
from bothends.toxics.pipeline import Item, Pipeline, Stage, ToxicCounters
from bothends.toxics.placement import Direction, PlacedToxic, random_for
from bothends.wire import offload, packets
from bothends.wire.plan import LOOPBACK, ROUTER_ADDRESSES, Topology

Outgoing: TypeAlias = tuple[int, bytes]
"""A port, and the packet to write to it."""

_LOOPBACK_ADDRESS: Final = bytes((127, 0, 0, 1))
_QUEUE: Final = "queue"  # stands for a toxic in events, if the pipeline is full
_MTU: Final = "mtu"
_UNREACHABLE: Final = "unreachable"


@dataclass(frozen=True, slots=True)
class PacketEvent:
    """What happened to one packet.

    `at` is in seconds, on the caller's clock. `event` is "sent" by a host, "arrived" at a host, or "lost" to
    `toxic`, which may also be "queue", "mtu" or "unreachable". `sender` and `receiver` are host indices; the
    receiver is -1 if no host has the address. `number` counts the packets of a link from 1 in the order of
    sending; it is 0 for a packet that a toxic has changed. `packet` is the whole IP packet.
    """

    at: float
    event: Literal["sent", "lost", "arrived"]
    sender: int
    receiver: int
    number: int
    packet: bytes
    toxic: str = ""


Observer: TypeAlias = Callable[[PacketEvent], object]


@dataclass(slots=True)
class DirectedLink:
    """The path from one port to another, with its toxics and counters."""

    sender: int
    receiver: int
    direction: Direction
    pipeline: Pipeline
    sent: int = 0
    sent_bytes: int = 0
    toxic_counters: dict[str, ToxicCounters] = field(default_factory=dict)


class Switch:
    """Forward packets between ports, through the toxics of each link.

    Call `receive` for each packet that a port sends, and `advance` at the time `due`. Both return the packets
    to write.

    Args:
        topology: the hosts and ports.
        toxics: with unique names.
        seed: of all random decisions.
        icmp: whether undeliverable and too large packets are answered with ICMP errors.
        observe: called with each packet event.

    Raises:
        ToxicError: a toxic cannot affect packets.
    """

    def __init__(
        self,
        topology: Topology,
        toxics: Sequence[PlacedToxic] = (),
        *,
        seed: int = 0,
        icmp: bool = True,
        observe: Observer | None = None,
    ) -> None:
        for spec in toxics:
            check_placement(spec)
        self.rejected: dict[str, int] = {}
        """Number of packets that were not forwarded, by reason: "mtu" or "unreachable"."""
        self._topology = topology
        self._toxics = toxics
        self._seed = seed
        self._icmp = icmp
        self._observe = observe
        self._mtu = topology.mtu
        self._host_of = [topology.hosts.index(host) for host in topology.ports]
        self._port_of = {
            address.packed: host.interfaces[0].port for host in topology.hosts for address in host.addresses
        }
        self.links = {
            (sender, receiver): self._new_link(sender, receiver)
            for sender in range(len(self._host_of))
            for receiver in range(len(self._host_of))
            if (
                receiver == topology.peer_ports[sender]
                if topology.peer_ports is not None
                else receiver != sender
            )
        }
        self._forwarding_tables = [self._build_table(port) for port in range(len(self._host_of))]

    def begin(self, now: float) -> None:
        """Start the schedules of all toxics. Call this before the first packet."""
        for link in self.links.values():
            link.pipeline.begin(now)

    @property
    def due(self) -> float:
        """When to call `advance`; infinity if no packet is held."""
        return min((link.pipeline.due for link in self.links.values()), default=math.inf)

    @property
    def held(self) -> int:
        """Bytes of packets that are held by toxics."""
        return sum(link.pipeline.held for link in self.links.values())

    @property
    def can_fast_forward(self) -> bool:
        """Whether neither toxics nor an observer look at packets, so that `fast_forward` may be used."""
        return self._observe is None and not any(link.pipeline.stages for link in self.links.values())

    def fast_forward(self, port: int, frame: bytes, ip_offset: int) -> int:
        """Count a frame, and return the port to write it to. Call this only while `can_fast_forward`.

        The frame's IP packet begins at `ip_offset`. Returns -1 if it needs `receive`: it is not for exactly
        one host, or larger than the MTU.
        """
        link = self._lookup(port, frame, ip_offset)
        if link is None:
            return -1
        count, size, largest = offload.segmented_sizes(frame, ip_offset)
        if largest > self._mtu:
            return -1
        link.sent += count
        link.sent_bytes += size
        return link.receiver

    def receive(self, now: float, port: int, packet: bytes) -> list[Outgoing]:
        """Take a packet that a port sends. Returns the packets to write immediately."""
        link = self._lookup(port, packet, 0)
        if link is not None and len(packet) <= self._mtu:
            return self._transmit(now, link, packet)
        return self._receive_slow_path(now, port, packet)

    def _lookup(self, port: int, data: bytes, ip_offset: int) -> DirectedLink | None:
        """Return the link of a unicast packet that begins at `ip_offset`, if its destination exists.

        This is the fast path for nearly all packets. Returns None for any other packet.
        """
        if len(data) < ip_offset + 40:
            return None
        if data[ip_offset] >> 4 == 4:
            if data[ip_offset + 9] == packets.IGMP:
                return None
            return self._forwarding_tables[port].get(data[ip_offset + 16 : ip_offset + 20])
        if data[ip_offset + 6] in packets.MAYBE_LINK_CONTROL:
            return None
        return self._forwarding_tables[port].get(data[ip_offset + 24 : ip_offset + 40])

    def _receive_slow_path(self, now: float, port: int, packet: bytes) -> list[Outgoing]:
        if not packets.version_of(packet) or packets.is_link_control(packet):
            return []
        receivers = self._receivers(port, packets.destination_of(packet))
        if not receivers:
            icmp_error = packets.destination_unreachable(packet, ROUTER_ADDRESSES)
            return self._reject(now, port, packet, _UNREACHABLE, icmp_error)
        parts: list[bytes] | None = [packet]
        if len(packet) > self._mtu:
            parts = packets.fragments(packet, self._mtu)
        if parts is None:
            icmp_error = packets.packet_too_big(packet, self._mtu, ROUTER_ADDRESSES)
            return self._reject(now, port, packet, _MTU, icmp_error)
        out: list[Outgoing] = []
        for receiver in receivers:
            link = self.links[port, receiver]
            for part in parts:
                out += self._transmit(now, link, part)
        return out

    def advance(self, now: float) -> list[Outgoing]:
        """Return the packets that have become due."""
        out: list[Outgoing] = []
        for link in self.links.values():
            if link.pipeline.due <= now:
                out += self._outgoing(now, link, link.pipeline.advance(now))
        return out

    def add_toxic(self, placed: PlacedToxic, now: float) -> list[Outgoing]:
        """Add a toxic after all others. Returns the packets that it releases. Raises ToxicError."""
        check_placement(placed)
        out: list[Outgoing] = []
        for link in self.links.values():
            if placed.direction == link.direction:
                out += self._outgoing(now, link, link.pipeline.add(self._new_stage(link, placed), now))
        return out

    def remove_toxic(self, name: str, now: float) -> list[Outgoing]:
        """Remove a toxic. Returns the packets that it held."""
        out: list[Outgoing] = []
        for link in self.links.values():
            out += self._outgoing(now, link, link.pipeline.remove(name, now))
        return out

    def _receivers(self, port: int, destination: bytes) -> Sequence[int]:
        topology = self._topology
        if topology.peer_ports is not None:
            if topology.shape == "loop" and destination not in self._port_of:
                return (port,) if destination[0] == LOOPBACK.network_address.packed[0] else ()
            return (topology.peer_ports[port],)
        found = self._port_of.get(destination)
        if found is not None:
            return (found,) if found != port else ()
        if packets.is_multicast_or_broadcast(destination):
            return [other for other in range(len(self._host_of)) if other != port]
        return ()

    def _transmit(self, now: float, link: DirectedLink, packet: bytes) -> list[Outgoing]:
        link.sent += 1
        link.sent_bytes += len(packet)
        if self._observe is not None:
            return self._transmit_observed(now, link, packet)
        return self._outgoing(
            now, link, link.pipeline.put(now, packet) if link.pipeline.stages else (packet,)
        )

    def _transmit_observed(self, now: float, link: DirectedLink, packet: bytes) -> list[Outgoing]:
        packet = _NumberedPacket(packet)
        packet.number = link.sent
        self._emit(now, "sent", link, packet)
        overflowed = link.pipeline.overflowed
        out = self._outgoing(now, link, link.pipeline.put(now, packet))
        if link.pipeline.overflowed > overflowed:
            self._emit(now, "lost", link, packet, _QUEUE)
        return out

    def _outgoing(self, now: float, link: DirectedLink, items: Iterable[Item]) -> list[Outgoing]:
        receiver = link.receiver
        out = [(receiver, item) for item in items if isinstance(item, bytes)]
        if self._observe is not None:
            for _, packet in out:
                self._emit(now, "arrived", link, packet)
        return out

    def _reject(
        self, now: float, port: int, packet: bytes, reason: str, icmp_error: bytes | None
    ) -> list[Outgoing]:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        if self._observe is not None:
            self._observe(PacketEvent(now, "lost", self._host_of[port], -1, 0, packet, reason))
        return [(port, icmp_error)] if icmp_error is not None and self._icmp else []

    def _emit(
        self,
        now: float,
        event: Literal["sent", "lost", "arrived"],
        link: DirectedLink,
        packet: bytes,
        toxic: str = "",
    ) -> None:
        if self._observe is not None:
            sender, receiver = self._host_of[link.sender], self._host_of[link.receiver]
            number = getattr(packet, "number", 0)
            self._observe(PacketEvent(now, event, sender, receiver, number, bytes(packet), toxic))

    def _build_table(self, port: int) -> dict[bytes, DirectedLink]:
        """Build the forwarding table of a port: the link for each address of a host."""
        table = {}
        for address in [*self._port_of, _LOOPBACK_ADDRESS]:
            for receiver in self._receivers(port, address):
                table[address] = self.links[port, receiver]
        return table

    def _new_link(self, sender: int, receiver: int) -> DirectedLink:
        is_downstream = self._host_of[sender] < self._host_of[receiver]
        direction: Direction = "downstream" if is_downstream else "upstream"
        link = DirectedLink(sender, receiver, direction, Pipeline(Medium.PACKETS))
        link.pipeline.stages += [
            self._new_stage(link, spec) for spec in self._toxics if spec.direction == direction
        ]
        return link

    def _new_stage(self, link: DirectedLink, placed: PlacedToxic) -> Stage:
        names = (self._topology.ports[port].name for port in (link.sender, link.receiver))
        random = random_for(self._seed, placed.name, *names)
        state = placed.toxic.new_state(placed.link_context(Medium.PACKETS, random, 1))
        counters = link.toxic_counters.setdefault(placed.name, ToxicCounters())
        stage = Stage(placed.name, state, Medium.PACKETS, counters)
        if self._observe is None:
            return stage
        return _ObservedStage(stage, functools.partial(self._on_lost, link))

    def _on_lost(self, link: DirectedLink, now: float, packet: bytes, toxic: str) -> None:
        self._emit(now, "lost", link, packet, toxic)


def check_placement(placed: PlacedToxic) -> None:
    """Check that a wire supports a toxic and its placement. Raises ToxicError."""
    if reason := placed.toxic.unsupported_reason(Medium.PACKETS):
        raise ToxicError(placed.toxic.type, reason)
    if placed.toxicity != 1 or placed.clients:
        raise ToxicError(
            placed.toxic.type,
            "a wire forwards packets and has no connections",
            "toxicity and clients are for impair",
        )


class _NumberedPacket(bytes):
    """A packet with its number, for the observer. Slices and changed copies of it have none."""

    number: int


class _ObservedStage(Stage):
    """A pipeline stage that reports the packets that its toxic drops."""

    __slots__ = ("_dropped", "_on_lost")

    def __init__(self, stage: Stage, on_lost: Callable[[float, bytes, str], object]) -> None:
        super().__init__(stage.name, stage.state, Medium.PACKETS, stage.counters, self._on_decision)
        self._on_lost = on_lost
        self._dropped = False

    def put(self, at: float, item: Item, stream: bool) -> list[tuple[float, Item]]:
        out = super().put(at, item, stream)
        if self._dropped and isinstance(item, bytes):
            self._dropped = False
            self._on_lost(at, item, self.name)
        return out

    def _on_decision(self, _position: int, _size: int, decision: Decision) -> None:
        self._dropped = decision == DROP
