"""One proxy: where it listens, whom it calls, and the toxics in between.

`Proxy` has a life: enabled, it listens; disabled, its address is refused and its connections are cut. Its
toxics can be changed at any time, and what is under way feels it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from bothends.endpoints import SCHEMES, Address, Endpoint
from bothends.errors import BothendsError, CannotCarry, ToxicError
from bothends.impair.connection import Connection
from bothends.impair.dialer import check_upstream
from bothends.impair.interfaces import Conversation
from bothends.impair.link import Pathway
from bothends.impair.recording import Journal, Replay
from bothends.impair.sessions import Desk, Session
from bothends.impair.sockets import FRAMINGS
from bothends.osutil.event_loop import IN, Loop
from bothends.sockets import Listener, open_listeners, prepare_accepted
from bothends.sockets.datagrams import Ancillary
from bothends.toxics.base import Medium
from bothends.toxics.pipeline import Pipeline, Stage, Tally
from bothends.toxics.placement import DIRECTIONS, Direction, Spec, random_for

MOST_CONNECTIONS: Final = 16_384
MOST_SESSIONS: Final = 4_096
IDLE: Final = 120.0  # seconds: as long as a NAT must keep a UDP session (RFC 4787, REQ-5)
_ACCEPTS: Final = 64  # a turn: newcomers must not starve those who are here
_QUIET: Final = 1.0  # seconds between two words of one kind
_PAUSE: Final = 0.1  # seconds until accept is tried again when descriptors have run out

_MEDIA: Final = {"stream": Medium.STREAM, "packets": Medium.MESSAGES, "datagrams": Medium.DATAGRAMS}

# Out of descriptors or memory: the connection stays in the queue, and accept would report it for ever.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Tell: TypeAlias = Callable[[str], None]
"""Told in words of what happens to connections."""


@dataclass(slots=True)
class Totals:
    """What has gone through a direction, connections that are over included. `received` from its source."""

    received: int = 0
    sent: int = 0
    overflowed: int = 0
    """Datagrams that nobody had room for: dropped, and by no toxic."""

    def add(self, pathway: Pathway) -> None:
        """Count what has gone through this one."""
        self.received += pathway.received
        self.sent += pathway.sent
        self.overflowed += pathway.given_up + pathway.pipeline.overflowed


def medium_of(listen: Endpoint, upstream: Endpoint, framing: str = "") -> Medium:
    """What passes between two endpoints, where streams may be cut into messages by a framing.

    Raises CannotCarry where they don't go together.
    """
    for endpoint in (listen, upstream):
        if endpoint.scheme == "tls" or endpoint.wrappers:
            hint = "TLS and PROXY headers pass through tcp:// unchanged"
            raise CannotCarry("impair", endpoint.label, "it opens nothing that is wrapped", hint)
        if endpoint.scheme in ("fd", "systemd", "stdio"):
            raise CannotCarry("impair", endpoint.label, "it opens its sockets itself")
    here, there = SCHEMES[listen.scheme].carries, SCHEMES[upstream.scheme].carries
    if framing:
        if "stream" not in (here, there):
            raise CannotCarry("impair", listen.label, "a framing cuts streams, and neither is one")
        return Medium.DATAGRAMS if here == "datagrams" else Medium.MESSAGES
    if (here == "stream") != (there == "stream"):
        what = f"{listen.label} to {upstream.label}"
        reason = f"{listen.kind} and {upstream.kind}: only one of the two has messages"
        raise CannotCarry(
            "impair", what, reason, "both must be streams, or neither; a framing cuts a stream into messages"
        )
    return _MEDIA[here]


class Proxy:
    """A listener, an upstream, and toxics. `framing` is a key of FRAMINGS, or empty.

    `listen` is the endpoint as it is now: once enabled, with the real port.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        listen: Endpoint,
        upstream: Endpoint,
        *,
        seed: int = 0,
        tell: Tell = lambda _words: None,
        journal: Journal | None = None,
        replay: Replay | None = None,
        framing: str = "",
    ) -> None:
        self.medium = medium_of(listen, upstream, framing)
        check_upstream(upstream)
        self.loop = loop
        self.name = name
        self.listen = listen
        self.upstream = upstream
        self.framed = framing
        self.framing = FRAMINGS[framing] if framing else None
        self.seed = seed
        self.specs: list[Spec] = []
        self.tallies: dict[str, Tally] = {}
        self.conversations: dict[int, Conversation] = {}
        self.opened = 0
        self.idle = IDLE
        self.turned_away = 0
        """Datagrams of newcomers while there were too many sessions."""
        self.totals: dict[Direction, Totals] = {each: Totals() for each in DIRECTIONS}
        self._tell = tell
        self._journal = journal
        self._replay = replay
        self._listeners: list[Listener] = []
        self._desks: list[Desk] = []
        self._told: dict[str, float] = {}
        self._came: dict[str, int] = {}
        """How many connections there had been when each toxic came."""

    # Life -----------------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """Whether it listens."""
        return bool(self._listeners or self._desks)

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
                self._desks.append(Desk(self, listener))
            else:
                self._listeners.append(listener)
                listener.socket.setblocking(False)
                self._welcome(listener)

    def disable(self) -> None:
        """Refuse newcomers, and cut everybody off."""
        for listener in self._listeners:
            self.loop.forget(listener.fileno())
            listener.close()
        self._listeners = []
        for desk in self._desks:
            desk.close()
        for conversation in list(self.conversations.values()):
            conversation.cut()
        self._desks = []

    def move(self, listen: Endpoint, upstream: Endpoint) -> None:
        """Take other addresses, disabled. Raises BothendsError where they can't be; all stays as it was."""
        medium = medium_of(listen, upstream, self.framed)
        check_upstream(upstream)
        for spec in self.specs:
            check_spec(spec, medium)
        self.disable()
        self.medium, self.listen, self.upstream = medium, listen, upstream

    def _welcome(self, listener: Listener) -> None:
        if listener.fileno() >= 0:
            self.loop.watch(listener.fileno(), IN, lambda _ready: self._accept(listener))

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPTS):
            if len(self.conversations) >= MOST_CONNECTIONS:
                self._pause(listener, f"{MOST_CONNECTIONS:,} connections are open, the limit")
                return
            try:
                sock, address = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(listener, f"cannot accept: {error.strerror}")
                    return
                continue  # that one has gone again (accept(2), "Error handling")
            with contextlib.suppress(BothendsError):
                prepare_accepted(sock, self.listen)
            self.opened += 1
            client = Address.of(sock.family, address)
            self.conversations[self.opened] = Connection(self, self.opened, sock, client)

    def _pause(self, listener: Listener, why: str) -> None:
        self._tell_rarely("accept", why)
        self.loop.forget(listener.fileno())
        self.loop.later(_PAUSE, lambda: self._welcome(listener))

    # What connections and sessions call (keeper.Keeper) -----------------------------------------------

    def pipelines(self, number: int, client: Address, medium: Medium) -> tuple[Pipeline, Pipeline]:
        """See Keeper."""
        up, down = (
            Pipeline(medium, self._stages(direction, number, client, medium)) for direction in DIRECTIONS
        )
        return up, down

    def begin(self, desk: Desk, client: Address, peer: Any, ancillary: Ancillary) -> Session | None:
        """See Keeper."""
        if len(self.conversations) >= MOST_SESSIONS:
            self.turned_away += 1
            return None
        self.opened += 1
        session = Session(self, self.opened, desk, client, peer, ancillary)
        self.conversations[self.opened] = session
        return session

    def left(self, conversation: Conversation, why: str) -> None:
        """See Keeper."""
        self.conversations.pop(conversation.number, None)
        for direction, pathway in _pathways_of(conversation):
            self.totals[direction].add(pathway)

    def unreachable(self, conversation: Conversation, error: BothendsError) -> None:
        """See Keeper."""
        self._tell_rarely("server", f"no server for {conversation.client}: {error}")

    def _tell_rarely(self, kind: str, words: str) -> None:
        """Tell it, but no more than once a second: whoever tries again and again is not to fill a log."""
        if self.loop.now - self._told.get(kind, -math.inf) >= _QUIET:
            self._told[kind] = self.loop.now
            self._tell(f"{self.name}: {words}")

    def _stages(self, direction: Direction, number: int, client: Address, medium: Medium) -> Iterator[Stage]:
        if self._replay is not None:
            for stage in self._replay.stages(self.name, number, direction, medium):
                stage.tally = self.tallies.setdefault(stage.name, Tally())
                yield self._recorded(stage, number, direction)
            return
        for spec in self.specs:
            if spec.direction == direction:
                made = self._stage(spec, number, client, medium)
                if made is not None:
                    yield self._recorded(made, number, direction)

    def _stage(self, spec: Spec, number: int, client: Address, medium: Medium) -> Stage | None:
        random = random_for(self.seed, self.name, number, spec.direction, spec.name)
        if not spec.meets(client.host, random):
            return None
        behaviour = spec.toxic.behaviour(spec.link(medium, random, max(0, number - self._came[spec.name])))
        return Stage(spec.name, behaviour, medium, self.tallies[spec.name])

    def _recorded(self, stage: Stage, number: int, direction: Direction, place: int = 0) -> Stage:
        if self._journal is not None:
            stage.record = self._journal.stage(self.name, number, direction, stage.name, place)
        return stage

    # Toxics ---------------------------------------------------------------------------------------------

    def spec(self, name: str) -> Spec | None:
        """The toxic of this name, if there is one."""
        return next((each for each in self.specs if each.name == name), None)

    def add(self, spec: Spec) -> None:
        """Add a toxic behind those that are there. Raises ToxicError where it cannot be here."""
        check_spec(spec, self.medium)
        self.specs.append(spec)
        self.tallies[spec.name] = Tally()
        self._came[spec.name] = self.opened
        for conversation, pathway in self._pathways(spec.direction):
            stage = self._stage(spec, conversation.number, conversation.client, self.medium)
            if stage is not None:
                self._recorded(stage, conversation.number, spec.direction, pathway.pipeline.passed)
                pathway.changed(pathway.pipeline.add(stage, self.loop.now))

    def remove(self, name: str) -> None:
        """Take a toxic away; what it holds is let go."""
        spec = self.spec(name)
        assert spec is not None
        self.specs.remove(spec)
        for _, pathway in self._pathways(spec.direction):
            pathway.changed(pathway.pipeline.remove(name, self.loop.now))

    def update(self, spec: Spec) -> None:
        """Give the toxic of this name other attributes or another toxicity. Raises ToxicError."""
        old = self.spec(spec.name)
        assert old is not None
        check_spec(spec, self.medium)
        self.specs[self.specs.index(old)] = spec
        for conversation, pathway in self._pathways(spec.direction):
            pipeline = pathway.pipeline
            stage = self._stage(spec, conversation.number, conversation.client, self.medium)
            if stage is None:
                pathway.changed(pipeline.remove(spec.name, self.loop.now))
            elif any(each.name == spec.name for each in pipeline.stages):
                pathway.changed(pipeline.replace(spec.name, stage.behaviour, self.loop.now))
            else:
                self._recorded(stage, conversation.number, spec.direction, pipeline.passed)
                pathway.changed(pipeline.add(stage, self.loop.now))

    def clear(self) -> None:
        """Take all toxics away."""
        for spec in list(self.specs):
            self.remove(spec.name)

    def traffic(self, direction: Direction) -> Totals:
        """What has gone through a direction until now."""
        totals = dataclasses.replace(self.totals[direction])
        for _, pathway in self._pathways(direction):
            totals.add(pathway)
        return totals

    def _pathways(self, direction: Direction) -> Iterator[tuple[Conversation, Pathway]]:
        for conversation in list(self.conversations.values()):
            for its, pathway in _pathways_of(conversation):
                if its == direction:
                    yield conversation, pathway


def _pathways_of(conversation: Conversation) -> Iterator[tuple[Direction, Pathway]]:
    if conversation.upstream is not None and conversation.downstream is not None:
        yield "upstream", conversation.upstream
        yield "downstream", conversation.downstream


def check_spec(spec: Spec, medium: Medium) -> None:
    """Raises ToxicError where a toxic cannot be on what passes."""
    objection = spec.toxic.objection(medium)
    if objection:
        raise ToxicError(spec.name, f"not on {medium}: {objection}")
