"""What connections and sessions need of their proxy, and what the proxy knows of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bothends.endpoints import Address, Endpoint
from bothends.errors import BothendsError
from bothends.framing import Framing
from bothends.osutil.event_loop import EventLoop
from bothends.toxics.base import Medium
from bothends.toxics.pipeline import Pipeline

if TYPE_CHECKING:
    from bothends.impair.link import ToxicLink
    from bothends.impair.sessions import DatagramListener, UdpSession


class Flow(Protocol):
    """One client and the server: a connection, or a session of datagrams. Numbered from 1."""

    number: int
    client: Address
    upstream: ToxicLink | None
    downstream: ToxicLink | None

    def abort(self) -> None:
        """Close both ends now, whatever is under way."""


class ProxyContext(Protocol):
    """The proxy."""

    loop: EventLoop
    upstream: Endpoint
    framing: Framing | None
    """How streams are cut into messages, if they are."""

    idle_timeout: float
    """Seconds after which a session on which nothing moves ends."""

    def new_pipelines(self, number: int, client: Address, medium: Medium) -> tuple[Pipeline, Pipeline]:
        """The toxics that a conversation meets, upstream and downstream."""

    def new_session(
        self, listener: DatagramListener, client: Address, peer: Any, ancillary: Any
    ) -> UdpSession | None:
        """A new session; None if there are too many."""

    def flow_closed(self, flow: Flow, reason: str) -> None:
        """It is over."""

    def upstream_unreachable(self, flow: Flow, error: BothendsError) -> None:
        """The server could not be called."""
