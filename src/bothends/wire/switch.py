"""Where a packet goes, and what the toxics make of it on the way. No I/O, no clock, no random of its own.

    receive() ──> neighbours' talk? whom for? MTU? ──> a pipeline for each way ──> what leaves, and where

1. Each way, from one port to another, has a pipeline of its own, with random numbers of its own: what one
   host does never changes what happens to another.
2. The same packets in the same order on a way meet the same decisions, whenever they come: toxics draw for
   each packet, not by the clock.
3. The wire's own MTU is a router's right before it: larger packets are cut, or answered with the ICMP error
   that tells the sender. With `icmp` off nothing is answered: a black hole (RFC 2923 section 2.1).
4. Where no toxic is and nobody observes, frames may go on as they come (`offload.py`): `fast_forward`.
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
"""A port, and the packet that leaves there."""

_LOOPBACK_ADDRESS: Final = bytes((127, 0, 0, 1))
_QUEUE: Final = "queue"  # what is full, as if it were a toxic
_MTU: Final = "mtu"
_UNREACHABLE: Final = "unreachable"


@dataclass(frozen=True, slots=True)
class PacketEvent:
    """One packet seen at one place. `at`: seconds on the caller's clock.

    `event`: "sent" by its host; "lost" to `toxic`, which may also be "queue", "mtu" or "unreachable"; or
    "arrived". `sender` and `receiver` are hosts by number; the receiver is -1 where there is none. `number`
    counts the packets of a way from 1, as sent; one that a toxic has changed has 0. `packet` is all of it.
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
    """From one port to another."""

    sender: int
    receiver: int
    direction: Direction
    pipeline: Pipeline
    sent: int = 0
    sent_bytes: int = 0
    toxic_counters: dict[str, ToxicCounters] = field(default_factory=dict)


class Switch:
    """The middle of a wire: `receive` what a port sends, `advance` when `due` has come.

    Each toxic has a name of its own. Raises ToxicError for one that can do nothing to packets.
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
        """Packets that went nowhere, by why."""
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
            (one, other): self._new_link(one, other)
            for one in range(len(self._host_of))
            for other in range(len(self._host_of))
            if (other == topology.peer_ports[one] if topology.peer_ports is not None else other != one)
        }
        self._forwarding_tables = [self._build_table(port) for port in range(len(self._host_of))]

    def begin(self, now: float) -> None:
        """From now on packets may come."""
        for way in self.links.values():
            way.pipeline.begin(now)

    @property
    def due(self) -> float:
        """When `advance` has something to do; infinity if nothing will happen by itself."""
        return min((way.pipeline.due for way in self.links.values()), default=math.inf)

    @property
    def held(self) -> int:
        """Bytes under way."""
        return sum(way.pipeline.held for way in self.links.values())

    @property
    def can_fast_forward(self) -> bool:
        """Whether nobody looks at single packets: then `fast_forward` may be used."""
        return self._observe is None and not any(way.pipeline.stages for way in self.links.values())

    def fast_forward(self, port: int, frame: bytes, ip_offset: int) -> int:
        """The port for which a frame is, if it is for one host alone; otherwise -1: see `receive`.

        Its IP packet begins at `at`. To be asked once for each frame, while `can_fast_forward`.
        """
        way = self._lookup(port, frame, ip_offset)
        if way is None:
            return -1
        count, size, largest = offload.segmented_sizes(frame, ip_offset)
        if largest > self._mtu:
            return -1
        way.sent += count
        way.sent_bytes += size
        return way.receiver

    def receive(self, now: float, port: int, packet: bytes) -> list[Outgoing]:
        """A port sends a packet; what leaves at once."""
        way = self._lookup(port, packet, 0)
        if way is not None and len(packet) <= self._mtu:
            return self._transmit(now, way, packet)
        return self._receive_slow_path(now, port, packet)

    def _lookup(self, port: int, data: bytes, ip_offset: int) -> DirectedLink | None:
        """Where the packet that begins at `at` goes, as nearly all do: to one host, which there is.

        None: it needs a closer look.
        """
        if len(data) < ip_offset + 40:
            return None
        if data[ip_offset] >> 4 == 4:
            return (
                None
                if data[ip_offset + 9] == packets.IGMP
                else self._forwarding_tables[port].get(data[ip_offset + 16 : ip_offset + 20])
            )
        is_odd = data[ip_offset + 6] in packets.MAYBE_LINK_CONTROL
        return None if is_odd else self._forwarding_tables[port].get(data[ip_offset + 24 : ip_offset + 40])

    def _receive_slow_path(self, now: float, port: int, packet: bytes) -> list[Outgoing]:
        if not packets.version_of(packet) or packets.is_link_control(packet):
            return []
        receivers = self._receivers(port, packets.destination_of(packet))
        if not receivers:
            return self._reject(
                now, port, packet, _UNREACHABLE, packets.destination_unreachable(packet, ROUTER_ADDRESSES)
            )
        parts: list[bytes] | None = [packet]
        if len(packet) > self._mtu:
            parts = packets.fragments(packet, self._mtu)
        if parts is None:
            answer = packets.packet_too_big(packet, self._mtu, ROUTER_ADDRESSES)
            return self._reject(now, port, packet, _MTU, answer)
        out: list[Outgoing] = []
        for receiver in receivers:
            way = self.links[port, receiver]
            for part in parts:
                out += self._transmit(now, way, part)
        return out

    def advance(self, now: float) -> list[Outgoing]:
        """What has become due leaves."""
        out: list[Outgoing] = []
        for way in self.links.values():
            if way.pipeline.due <= now:
                out += self._outgoing(now, way, way.pipeline.advance(now))
        return out

    def add_toxic(self, placed: PlacedToxic, now: float) -> list[Outgoing]:
        """A toxic comes, behind all others; what leaves because of it. Raises ToxicError."""
        check_placement(placed)
        out: list[Outgoing] = []
        for way in self.links.values():
            if placed.direction == way.direction:
                out += self._outgoing(now, way, way.pipeline.add(self._new_stage(way, placed), now))
        return out

    def remove_toxic(self, name: str, now: float) -> list[Outgoing]:
        """A toxic goes; what leaves because of it is what it held."""
        out: list[Outgoing] = []
        for way in self.links.values():
            out += self._outgoing(now, way, way.pipeline.remove(name, now))
        return out

    def _receivers(self, port: int, destination: bytes) -> Sequence[int]:
        plan = self._topology
        if plan.peer_ports is not None:
            if plan.shape == "loop" and destination not in self._port_of:
                return (port,) if destination[0] == LOOPBACK.network_address.packed[0] else ()
            return (plan.peer_ports[port],)
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
        left = self._outgoing(now, link, link.pipeline.put(now, packet))
        if link.pipeline.overflowed > overflowed:
            self._emit(now, "lost", link, packet, _QUEUE)
        return left

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
        """Where packets from a port go, for each address that a host has."""
        known = {}
        for address in [*self._port_of, _LOOPBACK_ADDRESS]:
            for receiver in self._receivers(port, address):
                known[address] = self.links[port, receiver]
        return known

    def _new_link(self, one: int, other: int) -> DirectedLink:
        sender, receiver = self._host_of[one], self._host_of[other]
        direction: Direction = "downstream" if sender < receiver else "upstream"
        way = DirectedLink(one, other, direction, Pipeline(Medium.PACKETS))
        way.pipeline.stages += [
            self._new_stage(way, spec) for spec in self._toxics if spec.direction == direction
        ]
        return way

    def _new_stage(self, link: DirectedLink, placed: PlacedToxic) -> Stage:
        names = (self._topology.ports[port].name for port in (link.sender, link.receiver))
        random = random_for(self._seed, placed.name, *names)
        behaviour = placed.toxic.new_state(placed.link_context(Medium.PACKETS, random, 1))
        stage = Stage(
            placed.name,
            behaviour,
            Medium.PACKETS,
            link.toxic_counters.setdefault(placed.name, ToxicCounters()),
        )
        return (
            stage if self._observe is None else _ObservedStage(stage, functools.partial(self._on_lost, link))
        )

    def _on_lost(self, link: DirectedLink, now: float, packet: bytes, toxic: str) -> None:
        self._emit(now, "lost", link, packet, toxic)


def check_placement(placed: PlacedToxic) -> None:
    """Raises ToxicError for a toxic that a wire cannot have."""
    if reason := placed.toxic.unsupported_reason(Medium.PACKETS):
        raise ToxicError(placed.toxic.type, reason)
    if placed.toxicity != 1 or placed.clients:
        raise ToxicError(
            placed.toxic.type,
            "a wire has packets and knows no connections",
            "toxicity and clients are for impair",
        )


class _NumberedPacket(bytes):
    """A packet that knows its number, for whoever observes. A part of it, or what is changed, has none."""

    number: int


class _ObservedStage(Stage):
    """A stage that tells which packets its toxic has dropped."""

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

    def _on_decision(self, place: int, size: int, decision: Decision) -> None:
        self._dropped = decision == DROP
