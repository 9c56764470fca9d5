"""One proxy: where it listens, whom it calls, and the toxics in between.

`Proxy` has a life: enabled, it listens; disabled, its address is refused and its connections are cut. Its
toxics can be changed at any time, and what is under way feels it.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from bothends.endpoints import SCHEMES, Address, Endpoint
from bothends.errors import BothendsError, CannotCarry, ToxicError
from bothends.impair.connection import Connection
from bothends.impair.dialing import check_upstream
from bothends.impair.direction import Pathway
from bothends.impair.loop import IN, Loop
from bothends.sockets import Listener, open_listeners, prepare_accepted
from bothends.toxics.base import Medium, Toxic
from bothends.toxics.pipeline import Pipeline, Stage, Tally
from bothends.toxics.spec import DIRECTIONS, Direction, Spec, random_for

MOST_CONNECTIONS: Final = 16_384
_ACCEPTS: Final = 64  # a turn: newcomers must not starve those who are here
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


def medium_of(listen: Endpoint, upstream: Endpoint) -> Medium:
    """What passes between two endpoints. Raises CannotCarry where they don't go together."""
    for endpoint in (listen, upstream):
        if endpoint.scheme == "tls" or endpoint.wrappers:
            hint = "TLS and PROXY headers pass through tcp:// unchanged"
            raise CannotCarry("impair", endpoint.label, "it opens nothing that is wrapped", hint)
        if endpoint.scheme in ("fd", "systemd", "stdio"):
            raise CannotCarry("impair", endpoint.label, "it opens its sockets itself")
    here, there = SCHEMES[listen.scheme].carries, SCHEMES[upstream.scheme].carries
    if (here == "stream") != (there == "stream"):
        what = f"{listen.label} to {upstream.label}"
        reason = f"{listen.kind} and {upstream.kind}: only one of the two has messages"
        raise CannotCarry("impair", what, reason, "both must be streams, or neither")
    return _MEDIA[here]


class Proxy:
    """A listener, an upstream, and toxics.

    `listen` is the endpoint as it is now: once enabled, with the real port.
    """

    def __init__(
        self, loop: Loop, name: str, listen: Endpoint, upstream: Endpoint, *, seed: int, tell: Tell
    ) -> None:
        self.medium = medium_of(listen, upstream)
        check_upstream(upstream)
        self.loop = loop
        self.name = name
        self.listen = listen
        self.upstream = upstream
        self.seed = seed
        self.specs: list[Spec] = []
        self.tallies: dict[str, Tally] = {}
        self.connections: dict[int, Connection] = {}
        self.opened = 0
        self.totals: dict[Direction, Totals] = {each: Totals() for each in DIRECTIONS}
        self._tell = tell
        self._listeners: list[Listener] = []

    # Life -----------------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """Whether it listens."""
        return bool(self._listeners)

    def enable(self) -> None:
        """Listen. Raises what `open_listeners` raises; nothing is then bound."""
        if self.enabled:
            return
        self._listeners = open_listeners(self.listen)
        first = self._listeners[0].endpoint
        if self.listen.port is not None:
            self.listen = self.listen.with_port(first.port or 0)
        elif first.path:
            self.listen = first
        for listener in self._listeners:
            listener.socket.setblocking(False)
            self._welcome(listener)

    def disable(self) -> None:
        """Refuse newcomers, and cut everybody off."""
        for listener in self._listeners:
            self.loop.forget(listener.fileno())
            listener.close()
        self._listeners = []
        for connection in list(self.connections.values()):
            connection.reset()

    def _welcome(self, listener: Listener) -> None:
        if listener.fileno() >= 0:
            self.loop.watch(listener.fileno(), IN, lambda _ready: self._accept(listener))

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPTS):
            if len(self.connections) >= MOST_CONNECTIONS:
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
            self.connections[self.opened] = Connection(self, self.opened, sock, client)

    def _pause(self, listener: Listener, why: str) -> None:
        self._tell(f"{self.name}: {why}")
        self.loop.forget(listener.fileno())
        self.loop.later(_PAUSE, lambda: self._welcome(listener))

    # What a connection calls (connection.Keeper) -------------------------------------------------------

    def pipelines(self, number: int, client: Address, medium: Medium) -> tuple[Pipeline, Pipeline]:
        """See Keeper."""
        up, down = (
            Pipeline(medium, self._stages(direction, number, client, medium)) for direction in DIRECTIONS
        )
        return up, down

    def left(self, connection: Connection, why: str) -> None:
        """See Keeper."""
        self.connections.pop(connection.number, None)
        for direction, pathway in zip(DIRECTIONS, connection.pathways, strict=False):
            self.totals[direction].received += pathway.received
            self.totals[direction].sent += pathway.sent

    def unreachable(self, connection: Connection, error: BothendsError) -> None:
        """See Keeper."""
        self._tell(f"{self.name}: {connection.client} is reset, as there is no server: {error}")

    def _stages(self, direction: Direction, number: int, client: Address, medium: Medium) -> Iterator[Stage]:
        for spec in self.specs:
            if spec.direction == direction:
                stage = self._stage(spec, number, client, medium)
                if stage is not None:
                    yield stage

    def _stage(self, spec: Spec, number: int, client: Address, medium: Medium) -> Stage | None:
        random = random_for(self.seed, self.name, number, spec.direction, spec.name)
        if not spec.meets(client.host, random):
            return None
        behaviour = spec.toxic.behaviour(spec.link(medium, random, number))
        return Stage(spec.name, behaviour, medium, self.tallies[spec.name])

    # Toxics ---------------------------------------------------------------------------------------------

    def spec(self, name: str) -> Spec | None:
        """The toxic of this name, if there is one."""
        return next((each for each in self.specs if each.name == name), None)

    def add(self, spec: Spec) -> None:
        """Add a toxic behind those that are there. Raises ToxicError where it cannot be here."""
        self._check(spec.name, spec.toxic)
        self.specs.append(spec)
        self.tallies[spec.name] = Tally()
        for connection, pathway in self._pathways(spec.direction):
            stage = self._stage(spec, connection.number, connection.client, pathway.pipeline.medium)
            if stage is not None:
                pathway.changed(pathway.pipeline.add(stage, self.loop.now))

    def remove(self, name: str) -> None:
        """Take a toxic away; what it holds is let go."""
        spec = self.spec(name)
        assert spec is not None
        self.specs.remove(spec)
        for _, pathway in self._pathways(spec.direction):
            pathway.changed(pathway.pipeline.remove(name, self.loop.now))

    def _check(self, name: str, toxic: Toxic) -> None:
        objection = toxic.objection(self.medium)
        if objection:
            raise ToxicError(name, f"not on {self.medium}: {objection}")

    def _pathways(self, direction: Direction) -> Iterator[tuple[Connection, Pathway]]:
        for connection in list(self.connections.values()):
            pathway = connection.upstream if direction == "upstream" else connection.downstream
            if pathway is not None:
                yield connection, pathway
