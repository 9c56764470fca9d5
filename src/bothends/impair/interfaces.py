"""What connections and sessions need of their proxy, and what the proxy knows of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bothends.endpoints import Address, Endpoint
from bothends.errors import BothendsError
from bothends.framing import Framing
from bothends.osutil.event_loop import Loop
from bothends.toxics.base import Medium
from bothends.toxics.pipeline import Pipeline

if TYPE_CHECKING:
    from bothends.impair.link import Pathway
    from bothends.impair.sessions import Desk, Session


class Conversation(Protocol):
    """One client and the server: a connection, or a session of datagrams. Numbered from 1."""

    number: int
    client: Address
    upstream: Pathway | None
    downstream: Pathway | None

    def cut(self) -> None:
        """Close both ends now, whatever is under way."""


class Keeper(Protocol):
    """The proxy."""

    loop: Loop
    upstream: Endpoint
    framing: Framing | None
    """How streams are cut into messages, if they are."""

    idle: float
    """Seconds after which a session on which nothing moves ends."""

    def pipelines(self, number: int, client: Address, medium: Medium) -> tuple[Pipeline, Pipeline]:
        """The toxics that a conversation meets, upstream and downstream."""

    def begin(self, desk: Desk, client: Address, peer: Any, ancillary: Any) -> Session | None:
        """A new session; None if there are too many."""

    def left(self, conversation: Conversation, why: str) -> None:
        """It is over."""

    def unreachable(self, conversation: Conversation, error: BothendsError) -> None:
        """The server could not be called."""
