"""Where a packet goes, and what the toxics make of it on the way. No I/O, no clock, no random of its own.

    receive() ──> neighbours' talk? whom for? MTU? ──> a pipeline for each way ──> what leaves, and where

1. Each way, from one port to another, has a pipeline of its own, with random numbers of its own: what one
   host does never changes what happens to another.
2. The same packets in the same order on a way meet the same decisions, whenever they come: toxics draw for
   each packet, not by the clock.
3. The wire's own MTU is a router's right before it: larger packets are cut, or answered with the ICMP error
   that tells the sender. With `icmp` off nothing is answered: a black hole (RFC 2923 section 2.1).
4. Where no toxic is and nobody observes, frames may go on as they come (`offload.py`): `straight`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from bothends.errors import ToxicError
from bothends.toxics.base import DROP, Decision, Medium
from bothends.toxics.pipeline import Item, Pipeline, Stage, Tally
from bothends.toxics.placement import Direction, Spec, random_for
from bothends.wire import offload, packets
from bothends.wire.plan import LOOPBACK, ROUTER, Plan

Outgoing: TypeAlias = tuple[int, bytes]
"""A port, and the packet that leaves there."""

_HOME: Final = bytes((127, 0, 0, 1))
_QUEUE: Final = "queue"  # what is full, as if it were a toxic
_MTU: Final = "mtu"
_NOWHERE: Final = "unreachable"


@dataclass(frozen=True, slots=True)
class Passage:
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


Observer: TypeAlias = Callable[[Passage], object]


@dataclass(slots=True)
class Way:
    """From one port to another."""

    sender: int
    receiver: int
    direction: Direction
    pipeline: Pipeline
    sent: int = 0
    sent_bytes: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)


class Link:
    """The middle of a wire: `receive` what a port sends, `advance` when `due` has come.

    Each toxic has a name of its own. Raises ToxicError for one that can do nothing to packets.
    """

    def __init__(
        self,
        plan: Plan,
        specs: Sequence[Spec] = (),
        *,
        seed: int = 0,
        icmp: bool = True,
        observe: Observer | None = None,
    ) -> None:
        for spec in specs:
            check_spec(spec)
        self.refused: dict[str, int] = {}
        """Packets that went nowhere, by why."""
        self._plan = plan
        self._specs = specs
        self._seed = seed
        self._icmp = icmp
        self._observe = observe
        self._mtu = plan.mtu
        self._host_of = [plan.hosts.index(host) for host in plan.ports]
        self._port_of = {
            address.packed: host.interfaces[0].port for host in plan.hosts for address in host.addresses
        }
        self.ways = {
            (one, other): self._way(one, other)
            for one in range(len(self._host_of))
            for other in range(len(self._host_of))
            if (other == plan.cables[one] if plan.cables is not None else other != one)
        }
        self._known = [self._known_from(port) for port in range(len(self._host_of))]

    def begin(self, now: float) -> None:
        """From now on packets may come."""
        for way in self.ways.values():
            way.pipeline.begin(now)

    @property
    def due(self) -> float:
        """When `advance` has something to do; infinity if nothing will happen by itself."""
        return min((way.pipeline.due for way in self.ways.values()), default=math.inf)

    @property
    def held(self) -> int:
        """Bytes under way."""
        return sum(way.pipeline.held for way in self.ways.values())

    @property
    def is_clear(self) -> bool:
        """Whether nobody looks at single packets: then `straight` may be used."""
        return self._observe is None and not any(way.pipeline.stages for way in self.ways.values())

    def straight(self, port: int, frame: bytes, at: int) -> int:
        """The port for which a frame is, if it is for one host alone; otherwise -1: see `receive`.

        Its IP packet begins at `at`. To be asked once for each frame, while `is_clear`.
        """
        way = self._way_of(port, frame, at)
        if way is None:
            return -1
        count, size, largest = offload.sizes_of(frame, at)
        if largest > self._mtu:
            return -1
        way.sent += count
        way.sent_bytes += size
        return way.receiver

    def receive(self, now: float, port: int, packet: bytes) -> list[Outgoing]:
        """A port sends a packet; what leaves at once."""
        way = self._way_of(port, packet, 0)
        if way is not None and len(packet) <= self._mtu:
            return self._put(now, way, packet)
        return self._consider(now, port, packet)

    def _way_of(self, port: int, data: bytes, at: int) -> Way | None:
        """Where the packet that begins at `at` goes, as nearly all do: to one host, which there is.

        None: it needs a closer look.
        """
        if len(data) < at + 40:
            return None
        if data[at] >> 4 == 4:
            return None if data[at + 9] == packets.IGMP else self._known[port].get(data[at + 16 : at + 20])
        is_odd = data[at + 6] in packets.MAYBE_NEIGHBOURLY
        return None if is_odd else self._known[port].get(data[at + 24 : at + 40])

    def _consider(self, now: float, port: int, packet: bytes) -> list[Outgoing]:
        if not packets.version_of(packet) or packets.is_neighbourly(packet):
            return []
        receivers = self._receivers(port, packets.destination_of(packet))
        if not receivers:
            return self._refuse(now, port, packet, _NOWHERE, packets.unreachable(packet, ROUTER))
        parts: list[bytes] | None = [packet]
        if len(packet) > self._mtu:
            parts = packets.fragments(packet, self._mtu)
        if parts is None:
            answer = packets.too_big(packet, self._mtu, ROUTER)
            return self._refuse(now, port, packet, _MTU, answer)
        out: list[Outgoing] = []
        for receiver in receivers:
            way = self.ways[port, receiver]
            for part in parts:
                out += self._put(now, way, part)
        return out

    def advance(self, now: float) -> list[Outgoing]:
        """What has become due leaves."""
        out: list[Outgoing] = []
        for way in self.ways.values():
            if way.pipeline.due <= now:
                out += self._left(now, way, way.pipeline.advance(now))
        return out

    def add(self, spec: Spec, now: float) -> list[Outgoing]:
        """A toxic comes, behind all others; what leaves because of it. Raises ToxicError."""
        check_spec(spec)
        out: list[Outgoing] = []
        for way in self.ways.values():
            if spec.direction == way.direction:
                out += self._left(now, way, way.pipeline.add(self._stage(way, spec), now))
        return out

    def remove(self, name: str, now: float) -> list[Outgoing]:
        """A toxic goes; what leaves because of it is what it held."""
        out: list[Outgoing] = []
        for way in self.ways.values():
            out += self._left(now, way, way.pipeline.remove(name, now))
        return out

    def _receivers(self, port: int, destination: bytes) -> Sequence[int]:
        plan = self._plan
        if plan.cables is not None:
            if plan.shape == "loop" and destination not in self._port_of:
                return (port,) if destination[0] == LOOPBACK.network_address.packed[0] else ()
            return (plan.cables[port],)
        found = self._port_of.get(destination)
        if found is not None:
            return (found,) if found != port else ()
        if packets.is_for_many(destination):
            return [other for other in range(len(self._host_of)) if other != port]
        return ()

    def _put(self, now: float, way: Way, packet: bytes) -> list[Outgoing]:
        way.sent += 1
        way.sent_bytes += len(packet)
        if self._observe is not None:
            return self._put_watched(now, way, packet)
        return self._left(now, way, way.pipeline.put(now, packet) if way.pipeline.stages else (packet,))

    def _put_watched(self, now: float, way: Way, packet: bytes) -> list[Outgoing]:
        packet = _Numbered(packet)
        packet.number = way.sent
        self._tell(now, "sent", way, packet)
        overflowed = way.pipeline.overflowed
        left = self._left(now, way, way.pipeline.put(now, packet))
        if way.pipeline.overflowed > overflowed:
            self._tell(now, "lost", way, packet, _QUEUE)
        return left

    def _left(self, now: float, way: Way, items: Iterable[Item]) -> list[Outgoing]:
        receiver = way.receiver
        out = [(receiver, item) for item in items if isinstance(item, bytes)]
        if self._observe is not None:
            for _, packet in out:
                self._tell(now, "arrived", way, packet)
        return out

    def _refuse(self, now: float, port: int, packet: bytes, why: str, answer: bytes | None) -> list[Outgoing]:
        self.refused[why] = self.refused.get(why, 0) + 1
        if self._observe is not None:
            self._observe(Passage(now, "lost", self._host_of[port], -1, 0, packet, why))
        return [(port, answer)] if answer is not None and self._icmp else []

    def _tell(
        self,
        now: float,
        event: Literal["sent", "lost", "arrived"],
        way: Way,
        packet: bytes,
        toxic: str = "",
    ) -> None:
        if self._observe is not None:
            sender, receiver = self._host_of[way.sender], self._host_of[way.receiver]
            number = getattr(packet, "number", 0)
            self._observe(Passage(now, event, sender, receiver, number, bytes(packet), toxic))

    def _known_from(self, port: int) -> dict[bytes, Way]:
        """Where packets from a port go, for each address that a host has."""
        known = {}
        for address in [*self._port_of, _HOME]:
            for receiver in self._receivers(port, address):
                known[address] = self.ways[port, receiver]
        return known

    def _way(self, one: int, other: int) -> Way:
        sender, receiver = self._host_of[one], self._host_of[other]
        direction: Direction = "downstream" if sender < receiver else "upstream"
        way = Way(one, other, direction, Pipeline(Medium.PACKETS))
        way.pipeline.stages += [self._stage(way, spec) for spec in self._specs if spec.direction == direction]
        return way

    def _stage(self, way: Way, spec: Spec) -> Stage:
        names = (self._plan.ports[port].name for port in (way.sender, way.receiver))
        random = random_for(self._seed, spec.name, *names)
        behaviour = spec.toxic.behaviour(spec.link(Medium.PACKETS, random, 1))
        stage = Stage(spec.name, behaviour, Medium.PACKETS, way.tallies.setdefault(spec.name, Tally()))
        return stage if self._observe is None else _Watched(stage, functools.partial(self._lost, way))

    def _lost(self, way: Way, now: float, packet: bytes, toxic: str) -> None:
        self._tell(now, "lost", way, packet, toxic)


def check_spec(spec: Spec) -> None:
    """Raises ToxicError for a toxic that a wire cannot have."""
    if reason := spec.toxic.objection(Medium.PACKETS):
        raise ToxicError(spec.toxic.type, reason)
    if spec.toxicity != 1 or spec.clients:
        raise ToxicError(
            spec.toxic.type,
            "a wire has packets and knows no connections",
            "toxicity and clients are for impair",
        )


class _Numbered(bytes):
    """A packet that knows its number, for whoever observes. A part of it, or what is changed, has none."""

    number: int


class _Watched(Stage):
    """A stage that tells which packets its toxic has dropped."""

    __slots__ = ("_dropped", "_lost")

    def __init__(self, stage: Stage, lost: Callable[[float, bytes, str], object]) -> None:
        super().__init__(stage.name, stage.behaviour, Medium.PACKETS, stage.tally, self._decided)
        self._lost = lost
        self._dropped = False

    def put(self, at: float, item: Item, stream: bool) -> list[tuple[float, Item]]:
        out = super().put(at, item, stream)
        if self._dropped and isinstance(item, bytes):
            self._dropped = False
            self._lost(at, item, self.name)
        return out

    def _decided(self, place: int, size: int, decision: Decision) -> None:
        self._dropped = decision == DROP
