"""One proxy: where it listens, whom it calls, and the toxics in between.

`Proxy` has a life: enabled, it listens; disabled, its address is refused and its connections are cut. Its
toxics can be changed at any time, and what is under way feels it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from bothends.endpoints import SCHEMES, Address, Endpoint
from bothends.errors import OUT_OF_RESOURCES, BothendsError, ToxicError, UnsupportedCombination
from bothends.impair.connection import ProxyConnection
from bothends.impair.dialer import check_upstream
from bothends.impair.interfaces import Flow
from bothends.impair.link import ToxicLink
from bothends.impair.recording import RecordingWriter, Replay
from bothends.impair.sessions import DatagramListener, UdpSession
from bothends.impair.sockets import FRAMINGS
from bothends.osutil.event_loop import IN, EventLoop
from bothends.sockets import Listener, open_listeners, prepare_accepted
from bothends.sockets.datagrams import Ancillary
from bothends.toxics.base import Medium
from bothends.toxics.pipeline import Pipeline, Stage, ToxicCounters
from bothends.toxics.placement import DIRECTIONS, Direction, PlacedToxic, random_for

MAX_CONNECTIONS: Final = 16_384
MAX_SESSIONS: Final = 4_096
IDLE_TIMEOUT: Final = 120.0  # seconds: as long as a NAT must keep a UDP session (RFC 4787, REQ-5)
_ACCEPT_BATCH: Final = 64  # a turn: newcomers must not starve those who are here
_NOTIFY_INTERVAL: Final = 1.0  # seconds between two words of one kind
_ACCEPT_RETRY: Final = 0.1  # seconds until accept is tried again when descriptors have run out

_MEDIA: Final = {"stream": Medium.STREAM, "packets": Medium.MESSAGES, "datagrams": Medium.DATAGRAMS}

# Out of descriptors or memory: the connection stays in the queue, and accept would report it for ever.

Notify: TypeAlias = Callable[[str], None]
"""Told in words of what happens to connections."""


@dataclass(slots=True)
class TrafficCounters:
    """What has gone through a direction, connections that are over included. `received` from its source."""

    received: int = 0
    sent: int = 0
    overflowed: int = 0
    """Datagrams that nobody had room for: dropped, and by no toxic."""

    def add(self, link: ToxicLink) -> None:
        """Count what has gone through this one."""
        self.received += link.received
        self.sent += link.sent
        self.overflowed += link.overflowed + link.pipeline.overflowed


def medium_of(listen: Endpoint, upstream: Endpoint, framing: str = "") -> Medium:
    """What passes between two endpoints, where streams may be cut into messages by a framing.

    Raises CannotCarry where they don't go together.
    """
    for endpoint in (listen, upstream):
        if endpoint.scheme == "tls" or endpoint.wrappers:
            hint = "TLS and PROXY headers pass through tcp:// unchanged"
            raise UnsupportedCombination("impair", endpoint.label, "it opens nothing that is wrapped", hint)
        if endpoint.scheme in ("fd", "systemd", "stdio"):
            raise UnsupportedCombination("impair", endpoint.label, "it opens its sockets itself")
    here, there = SCHEMES[listen.scheme].socket_type, SCHEMES[upstream.scheme].socket_type
    if framing:
        if "stream" not in (here, there):
            raise UnsupportedCombination("impair", listen.label, "a framing cuts streams, and neither is one")
        return Medium.DATAGRAMS if here == "datagrams" else Medium.MESSAGES
    if (here == "stream") != (there == "stream"):
        what = f"{listen.label} to {upstream.label}"
        reason = f"{listen.kind} and {upstream.kind}: only one of the two has messages"
        raise UnsupportedCombination(
            "impair", what, reason, "both must be streams, or neither; a framing cuts a stream into messages"
        )
    return _MEDIA[here]


class Proxy:
    """A listener, an upstream, and toxics. `framing` is a key of FRAMINGS, or empty.

    `listen` is the endpoint as it is now: once enabled, with the real port.
    """

    def __init__(
        self,
        loop: EventLoop,
        name: str,
        listen: Endpoint,
        upstream: Endpoint,
        *,
        seed: int = 0,
        notify: Notify = lambda _words: None,
        recording: RecordingWriter | None = None,
        replay: Replay | None = None,
        framing: str = "",
    ) -> None:
        self.medium = medium_of(listen, upstream, framing)
        check_upstream(upstream)
        self.loop = loop
        self.name = name
        self.listen = listen
        self.upstream = upstream
        self.framing_name = framing
        self.framing = FRAMINGS[framing] if framing else None
        self.seed = seed
        self.toxics: list[PlacedToxic] = []
        self.toxic_counters: dict[str, ToxicCounters] = {}
        self.flows: dict[int, Flow] = {}
        self.flows_opened = 0
        self.idle_timeout = IDLE_TIMEOUT
        self.datagrams_rejected = 0
        """Datagrams of newcomers while there were too many sessions."""
        self.closed_traffic: dict[Direction, TrafficCounters] = {
            each: TrafficCounters() for each in DIRECTIONS
        }
        self._notify = notify
        self._recording = recording
        self._replay = replay
        self._listeners: list[Listener] = []
        self._datagram_listeners: list[DatagramListener] = []
        self._last_notified: dict[str, float] = {}
        self._flows_before_toxic: dict[str, int] = {}
        """How many connections there had been when each toxic came."""

    # Life -----------------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """Whether it listens."""
        return bool(self._listeners or self._datagram_listeners)

    def enable(self) -> None:
        """Listen. Raises what `open_listeners` raises; nothing is then bound."""
        if self.enabled:
            return
        opened = open_listeners(self.listen)
        first = opened[0].endpoint
        if self.listen.port is not None:
            self.listen = self.listen.with_port(first.port or 0)
        elif first.path:
            self.listen = first
        for listener in opened:
            if listener.role == "datagrams":
                self._datagram_listeners.append(DatagramListener(self, listener))
            else:
                self._listeners.append(listener)
                listener.socket.setblocking(False)
                self._watch_listener(listener)

    def disable(self) -> None:
        """Refuse newcomers, and cut everybody off."""
        for listener in self._listeners:
            self.loop.unwatch(listener.fileno())
            listener.close()
        self._listeners = []
        for desk in self._datagram_listeners:
            desk.close()
        for conversation in list(self.flows.values()):
            conversation.abort()
        self._datagram_listeners = []

    def change_addresses(self, listen: Endpoint, upstream: Endpoint) -> None:
        """Take other addresses, disabled. Raises BothendsError where they can't be; all stays as it was."""
        medium = medium_of(listen, upstream, self.framing_name)
        check_upstream(upstream)
        for spec in self.toxics:
            check_placement(spec, medium)
        self.disable()
        self.medium, self.listen, self.upstream = medium, listen, upstream

    def _watch_listener(self, listener: Listener) -> None:
        if listener.fileno() >= 0:
            self.loop.watch(listener.fileno(), IN, lambda _ready: self._accept(listener))

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPT_BATCH):
            if len(self.flows) >= MAX_CONNECTIONS:
                self._pause_accept(listener, f"{MAX_CONNECTIONS:,} connections are open, the limit")
                return
            try:
                sock, address = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._pause_accept(listener, f"cannot accept: {error.strerror}")
                    return
                continue  # that one has gone again (accept(2), "Error handling")
            with contextlib.suppress(BothendsError):
                prepare_accepted(sock, self.listen)
            self.flows_opened += 1
            client = Address.from_sockaddr(sock.family, address)
            self.flows[self.flows_opened] = ProxyConnection(self, self.flows_opened, sock, client)

    def _pause_accept(self, listener: Listener, reason: str) -> None:
        self._notify_throttled("accept", reason)
        self.loop.unwatch(listener.fileno())
        self.loop.call_later(_ACCEPT_RETRY, lambda: self._watch_listener(listener))

    # What connections and sessions call (keeper.Keeper) -----------------------------------------------

    def new_pipelines(self, number: int, client: Address, medium: Medium) -> tuple[Pipeline, Pipeline]:
        """See Keeper."""
        up, down = (
            Pipeline(medium, self._new_stages(direction, number, client, medium)) for direction in DIRECTIONS
        )
        return up, down

    def new_session(
        self, listener: DatagramListener, client: Address, peer: Any, ancillary: Ancillary
    ) -> UdpSession | None:
        """See Keeper."""
        if len(self.flows) >= MAX_SESSIONS:
            self.datagrams_rejected += 1
            return None
        self.flows_opened += 1
        session = UdpSession(self, self.flows_opened, listener, client, peer, ancillary)
        self.flows[self.flows_opened] = session
        return session

    def flow_closed(self, flow: Flow, reason: str) -> None:
        """See Keeper."""
        self.flows.pop(flow.number, None)
        for direction, pathway in _links_of(flow):
            self.closed_traffic[direction].add(pathway)

    def upstream_unreachable(self, flow: Flow, error: BothendsError) -> None:
        """See Keeper."""
        self._notify_throttled("server", f"no server for {flow.client}: {error}")

    def _notify_throttled(self, kind: str, words: str) -> None:
        """Tell it, but no more than once a second: whoever tries again and again is not to fill a log."""
        if self.loop.now - self._last_notified.get(kind, -math.inf) >= _NOTIFY_INTERVAL:
            self._last_notified[kind] = self.loop.now
            self._notify(f"{self.name}: {words}")

    def _new_stages(
        self, direction: Direction, number: int, client: Address, medium: Medium
    ) -> Iterator[Stage]:
        if self._replay is not None:
            for stage in self._replay.stages(self.name, number, direction, medium):
                stage.counters = self.toxic_counters.setdefault(stage.name, ToxicCounters())
                yield self._with_recorder(stage, number, direction)
            return
        for spec in self.toxics:
            if spec.direction == direction:
                made = self._new_stage(spec, number, client, medium)
                if made is not None:
                    yield self._with_recorder(made, number, direction)

    def _new_stage(self, placed: PlacedToxic, number: int, client: Address, medium: Medium) -> Stage | None:
        random = random_for(self.seed, self.name, number, placed.direction, placed.name)
        if not placed.applies_to(client.host, random):
            return None
        behaviour = placed.toxic.new_state(
            placed.link_context(medium, random, max(0, number - self._flows_before_toxic[placed.name]))
        )
        return Stage(placed.name, behaviour, medium, self.toxic_counters[placed.name])

    def _with_recorder(self, stage: Stage, number: int, direction: Direction, position: int = 0) -> Stage:
        if self._recording is not None:
            stage.record = self._recording.start_stage(self.name, number, direction, stage.name, position)
        return stage

    # Toxics ---------------------------------------------------------------------------------------------

    def find_toxic(self, name: str) -> PlacedToxic | None:
        """The toxic of this name, if there is one."""
        return next((each for each in self.toxics if each.name == name), None)

    def add_toxic(self, placed: PlacedToxic) -> None:
        """Add a toxic behind those that are there. Raises ToxicError where it cannot be here."""
        check_placement(placed, self.medium)
        self.toxics.append(placed)
        self.toxic_counters[placed.name] = ToxicCounters()
        self._flows_before_toxic[placed.name] = self.flows_opened
        for conversation, pathway in self._links(placed.direction):
            stage = self._new_stage(placed, conversation.number, conversation.client, self.medium)
            if stage is not None:
                self._with_recorder(
                    stage, conversation.number, placed.direction, pathway.pipeline.output_position
                )
                pathway.toxics_changed(pathway.pipeline.add(stage, self.loop.now))

    def remove_toxic(self, name: str) -> None:
        """Take a toxic away; what it holds is let go."""
        spec = self.find_toxic(name)
        assert spec is not None
        self.toxics.remove(spec)
        for _, pathway in self._links(spec.direction):
            pathway.toxics_changed(pathway.pipeline.remove(name, self.loop.now))

    def update_toxic(self, placed: PlacedToxic) -> None:
        """Give the toxic of this name other attributes or another toxicity. Raises ToxicError."""
        old = self.find_toxic(placed.name)
        assert old is not None
        check_placement(placed, self.medium)
        self.toxics[self.toxics.index(old)] = placed
        for conversation, pathway in self._links(placed.direction):
            pipeline = pathway.pipeline
            stage = self._new_stage(placed, conversation.number, conversation.client, self.medium)
            if stage is None:
                pathway.toxics_changed(pipeline.remove(placed.name, self.loop.now))
            elif any(each.name == placed.name for each in pipeline.stages):
                pathway.toxics_changed(pipeline.replace(placed.name, stage.state, self.loop.now))
            else:
                self._with_recorder(stage, conversation.number, placed.direction, pipeline.output_position)
                pathway.toxics_changed(pipeline.add(stage, self.loop.now))

    def remove_all_toxics(self) -> None:
        """Take all toxics away."""
        for spec in list(self.toxics):
            self.remove_toxic(spec.name)

    def traffic(self, direction: Direction) -> TrafficCounters:
        """What has gone through a direction until now."""
        totals = dataclasses.replace(self.closed_traffic[direction])
        for _, pathway in self._links(direction):
            totals.add(pathway)
        return totals

    def _links(self, direction: Direction) -> Iterator[tuple[Flow, ToxicLink]]:
        for conversation in list(self.flows.values()):
            for its, pathway in _links_of(conversation):
                if its == direction:
                    yield conversation, pathway


def _links_of(flow: Flow) -> Iterator[tuple[Direction, ToxicLink]]:
    if flow.upstream is not None and flow.downstream is not None:
        yield "upstream", flow.upstream
        yield "downstream", flow.downstream


def check_placement(placed: PlacedToxic, medium: Medium) -> None:
    """Raises ToxicError where a toxic cannot be on what passes."""
    objection = placed.toxic.unsupported_reason(medium)
    if objection:
        raise ToxicError(placed.name, f"not on {medium}: {objection}")
