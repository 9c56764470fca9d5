"""Protocols between a proxy and its connections and sessions."""

from __future__ import annotations

from typing import Protocol

from bothends.endpoints import Address, Endpoint
from bothends.errors import BothendsError
from bothends.framing import Framing
from bothends.impair.link import ToxicLink
from bothends.osutil.event_loop import EventLoop
from bothends.toxics.base import Medium
from bothends.toxics.pipeline import Pipeline


class Flow(Protocol):
    """A connection or datagram session between a client and the server, numbered from 1."""

    number: int
    client: Address
    upstream: ToxicLink | None
    downstream: ToxicLink | None

    def abort(self) -> None:
        """Close both ends at once."""


class ProxyContext(Protocol):
    """The proxy, as its connections and sessions use it."""

    loop: EventLoop
    upstream: Endpoint
    framing: Framing | None
    """How to cut streams into messages, or None."""

    idle_timeout: float
    """Seconds without data after which a datagram session ends."""

    def new_pipelines(self, number: int, client: Address, medium: Medium) -> tuple[Pipeline, Pipeline]:
        """Build the toxic pipelines of a flow: upstream, downstream."""

    def flow_closed(self, flow: Flow, reason: str) -> None:
        """Forget a closed flow, and add its traffic to the totals."""

    def upstream_unreachable(self, flow: Flow, error: BothendsError) -> None:
        """Report that connecting to the server failed."""
