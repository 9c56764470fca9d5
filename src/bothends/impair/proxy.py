"""One proxy: a listening address, an upstream address, and the toxics in between.

An enabled proxy listens. Disabling it closes its listeners and aborts its connections. Toxics can be changed
at any time, and apply to open connections too.
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
_ACCEPT_BATCH: Final = 64  # accepts per event-loop iteration, so that open connections are served too
_NOTIFY_INTERVAL: Final = 1.0  # seconds between two notifications of the same kind
_ACCEPT_RETRY: Final = 0.1  # seconds until accept(2) is retried after a resource limit was reached

_MEDIA: Final = {"stream": Medium.STREAM, "packets": Medium.MESSAGES, "datagrams": Medium.DATAGRAMS}
_MEDIUM_NAMES: Final = {
    Medium.STREAM: "a stream",
    Medium.MESSAGES: "messages",
    Medium.DATAGRAMS: "datagrams",
    Medium.PACKETS: "packets",
}

Notify: TypeAlias = Callable[[str], None]
"""Called with a line of text about a problem with connections."""


@dataclass(slots=True)
class TrafficCounters:
    """Traffic of one direction of a proxy, including closed connections. `received` and `sent` are bytes."""

    received: int = 0
    sent: int = 0
    overflowed: int = 0
    """Datagrams dropped because a queue was full, rather than by a toxic."""

    def add(self, link: ToxicLink) -> None:
        """Add the traffic of a link."""
        self.received += link.received
        self.sent += link.sent
        self.overflowed += link.overflowed + link.pipeline.overflowed


def medium_of(listen: Endpoint, upstream: Endpoint, framing: str = "") -> Medium:
    """Return the medium between two endpoints; with a framing, streams carry messages.

    Raises UnsupportedCombination if the endpoints cannot be connected to each other.
    """
    for endpoint in (listen, upstream):
        if endpoint.scheme == "tls" or endpoint.wrappers:
            hint = "TLS and PROXY headers pass through tcp:// unchanged"
            reason = "it does not terminate TLS or parse PROXY headers"
            raise UnsupportedCombination("impair", endpoint.label, reason, hint)
        if endpoint.scheme in ("fd", "systemd", "stdio"):
            raise UnsupportedCombination("impair", endpoint.label, "it opens its own sockets")
    from_type, to_type = SCHEMES[listen.scheme].socket_type, SCHEMES[upstream.scheme].socket_type
    if framing:
        if "stream" not in (from_type, to_type):
            raise UnsupportedCombination("impair", listen.label, "a framing needs a stream at either end")
        return Medium.DATAGRAMS if from_type == "datagrams" else Medium.MESSAGES
    if (from_type == "stream") != (to_type == "stream"):
        pair = f"{listen.label} to {upstream.label}"
        reason = f"{listen.kind} and {upstream.kind}: only one of the two has messages"
        raise UnsupportedCombination(
            "impair", pair, reason, "both must be streams, or neither; a framing cuts a stream into messages"
        )
    return _MEDIA[from_type]


class Proxy:
    """A listener, an upstream, and toxics. `framing` is a key of FRAMINGS, or empty.

    Once enabled, `listen` has the real port.
    """

    def __init__(
        self,
        loop: EventLoop,
        name: str,
        listen: Endpoint,
        upstream: Endpoint,
        *,
        seed: int = 0,
        notify: Notify = lambda _text: None,
        recording: RecordingWriter | None = None,
        replay: Replay | None = None,
        framing: str = "",
    ) -> None:
        self.medium = medium_of(listen, upstream, framing)
        check_upstream(upstream)
        self.loop = loop
        self.name = name
        self.listen = listen
        self.bound: Endpoint | None = None
        """The address of the last listener; of several addresses, the first of IPv4 if there is one."""
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
        """Datagrams of new clients that were dropped at the limit of sessions."""
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
        """Number of flows opened before each toxic was added, by its name."""

    # Listening ------------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """Whether the proxy listens."""
        return bool(self._listeners or self._datagram_listeners)

    def enable(self) -> None:
        """Start listening. On an exception of `open_listeners` nothing is bound."""
        if self.enabled:
            return
        opened = open_listeners(self.listen)
        first = opened[0].endpoint
        if self.listen.port is not None:
            self.listen = self.listen.with_port(first.port or 0)
        elif first.path:
            self.listen = first
        addresses = [each.endpoint for each in opened]
        self.bound = next((each for each in addresses if ":" not in each.host), addresses[0])
        for listener in opened:
            if listener.role == "datagrams":
                self._datagram_listeners.append(DatagramListener(self, listener))
            else:
                self._listeners.append(listener)
                listener.socket.setblocking(False)
                self._watch_listener(listener)

    def disable(self) -> None:
        """Stop listening, and abort all connections and sessions."""
        for listener in self._listeners:
            self.loop.unwatch(listener.fileno())
            listener.close()
        self._listeners = []
        for datagram_listener in self._datagram_listeners:
            datagram_listener.close()
        for flow in list(self.flows.values()):
            flow.abort()
        self._datagram_listeners = []

    def change_addresses(self, listen: Endpoint, upstream: Endpoint) -> None:
        """Disable the proxy and change its addresses.

        Raises BothendsError, without any change, if the new addresses are invalid.
        """
        medium = medium_of(listen, upstream, self.framing_name)
        check_upstream(upstream)
        for spec in self.toxics:
            check_placement(spec, medium)
        self.disable()
        self.medium, self.listen, self.upstream, self.bound = medium, listen, upstream, None

    def _watch_listener(self, listener: Listener) -> None:
        if listener.fileno() >= 0:
            self.loop.watch(listener.fileno(), IN, lambda _ready: self._accept(listener))

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPT_BATCH):
            if len(self.flows) >= MAX_CONNECTIONS:
                self._pause_accept(listener, f"limit of {MAX_CONNECTIONS:,} connections reached")
                return
            try:
                sock, address = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._pause_accept(listener, f"cannot accept: {error.strerror}")
                    return
                continue  # the client is already gone (accept(2), "Error handling")
            with contextlib.suppress(BothendsError):
                prepare_accepted(sock, self.listen)
            self.flows_opened += 1
            client = Address.from_sockaddr(sock.family, address)
            self.flows[self.flows_opened] = ProxyConnection(self, self.flows_opened, sock, client)

    def _pause_accept(self, listener: Listener, reason: str) -> None:
        self._notify_throttled("accept", reason)
        self.loop.unwatch(listener.fileno())
        self.loop.call_later(_ACCEPT_RETRY, lambda: self._watch_listener(listener))

    # Called by connections and sessions (ProxyContext, SessionContext) --------------------------------

    def new_pipelines(self, number: int, client: Address, medium: Medium) -> tuple[Pipeline, Pipeline]:
        """Build the toxic pipelines of a flow: upstream, downstream."""
        up, down = (
            Pipeline(medium, self._new_stages(direction, number, client, medium)) for direction in DIRECTIONS
        )
        return up, down

    def new_session(
        self, listener: DatagramListener, client: Address, peer: Any, ancillary: Ancillary
    ) -> UdpSession | None:
        """Start a datagram session, or return None at the limit."""
        if len(self.flows) >= MAX_SESSIONS:
            self.datagrams_rejected += 1
            return None
        self.flows_opened += 1
        session = UdpSession(self, self.flows_opened, listener, client, peer, ancillary)
        self.flows[self.flows_opened] = session
        return session

    def flow_closed(self, flow: Flow, reason: str) -> None:
        """Forget a closed flow, and add its traffic to the totals."""
        self.flows.pop(flow.number, None)
        for direction, link in _links_of(flow):
            self.closed_traffic[direction].add(link)

    def upstream_unreachable(self, flow: Flow, error: BothendsError) -> None:
        """Report that connecting to the server failed."""
        self._notify_throttled("server", f"no server for {flow.client}: {error}")

    def _notify_throttled(self, kind: str, text: str) -> None:
        """Notify at most once per second and kind, because a retrying client would flood the log."""
        if self.loop.now - self._last_notified.get(kind, -math.inf) >= _NOTIFY_INTERVAL:
            self._last_notified[kind] = self.loop.now
            self._notify(f"{self.name}: {text}")

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
                new_stage = self._new_stage(spec, number, client, medium)
                if new_stage is not None:
                    yield self._with_recorder(new_stage, number, direction)

    def _new_stage(self, placed: PlacedToxic, number: int, client: Address, medium: Medium) -> Stage | None:
        random = random_for(self.seed, self.name, number, placed.direction, placed.name)
        if not placed.applies_to(client.host, random):
            return None
        state = placed.toxic.new_state(
            placed.link_context(medium, random, max(0, number - self._flows_before_toxic[placed.name]))
        )
        return Stage(placed.name, state, medium, self.toxic_counters[placed.name])

    def _with_recorder(self, stage: Stage, number: int, direction: Direction, position: int = 0) -> Stage:
        if self._recording is not None:
            stage.record = self._recording.start_stage(self.name, number, direction, stage.name, position)
        return stage

    # Toxics ---------------------------------------------------------------------------------------------

    def find_toxic(self, name: str) -> PlacedToxic | None:
        """Return the toxic of this name, or None."""
        return next((each for each in self.toxics if each.name == name), None)

    def add_toxic(self, placed: PlacedToxic) -> None:
        """Append a toxic, to open connections too. Raises ToxicError if the medium does not support it."""
        check_placement(placed, self.medium)
        self.toxics.append(placed)
        self.toxic_counters[placed.name] = ToxicCounters()
        self._flows_before_toxic[placed.name] = self.flows_opened
        for flow, link in self._links(placed.direction):
            stage = self._new_stage(placed, flow.number, flow.client, self.medium)
            if stage is not None:
                self._with_recorder(stage, flow.number, placed.direction, link.pipeline.output_position)
                link.toxics_changed(link.pipeline.add(stage, self.loop.now))

    def remove_toxic(self, name: str) -> None:
        """Remove a toxic and release the data it holds."""
        spec = self.find_toxic(name)
        assert spec is not None
        self.toxics.remove(spec)
        for _, link in self._links(spec.direction):
            link.toxics_changed(link.pipeline.remove(name, self.loop.now))

    def update_toxic(self, placed: PlacedToxic) -> None:
        """Replace the attributes, toxicity and clients of the toxic of this name. Raises ToxicError."""
        old = self.find_toxic(placed.name)
        assert old is not None
        check_placement(placed, self.medium)
        self.toxics[self.toxics.index(old)] = placed
        for flow, link in self._links(placed.direction):
            pipeline = link.pipeline
            stage = self._new_stage(placed, flow.number, flow.client, self.medium)
            if stage is None:
                link.toxics_changed(pipeline.remove(placed.name, self.loop.now))
            elif any(each.name == placed.name for each in pipeline.stages):
                link.toxics_changed(pipeline.replace(placed.name, stage.state, self.loop.now))
            else:
                self._with_recorder(stage, flow.number, placed.direction, pipeline.output_position)
                link.toxics_changed(pipeline.add(stage, self.loop.now))

    def remove_all_toxics(self) -> None:
        """Remove all toxics."""
        for spec in list(self.toxics):
            self.remove_toxic(spec.name)

    def traffic(self, direction: Direction) -> TrafficCounters:
        """Return the traffic of a direction so far, over open and closed flows."""
        totals = dataclasses.replace(self.closed_traffic[direction])
        for _, link in self._links(direction):
            totals.add(link)
        return totals

    def _links(self, direction: Direction) -> Iterator[tuple[Flow, ToxicLink]]:
        for flow in list(self.flows.values()):
            for link_direction, link in _links_of(flow):
                if link_direction == direction:
                    yield flow, link


def _links_of(flow: Flow) -> Iterator[tuple[Direction, ToxicLink]]:
    if flow.upstream is not None and flow.downstream is not None:
        yield "upstream", flow.upstream
        yield "downstream", flow.downstream


def check_placement(placed: PlacedToxic, medium: Medium) -> None:
    """Raise ToxicError if the medium does not support the toxic."""
    reason = placed.toxic.unsupported_reason(medium)
    if reason:
        raise ToxicError(placed.name, f"not supported on {_MEDIUM_NAMES[medium]}: {reason}")
