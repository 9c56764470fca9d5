"""What TLS and the PROXY header have in common: a conversation around another one."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from bothends.services.base import Conversation, Peer, Post

# Opens what is to be wrapped: `Service.open`, or another layer's opener.
Open: TypeAlias = Callable[[Peer, Post], Conversation]


class Wrapping(Conversation):
    """A conversation around another, which is opened only when the outer one is ready.

    A subclass says how bytes come in and go out. What the inner conversation raises ends this one, and
    is told as its failure, after its last word.
    """

    def __init__(self, open_inner: Open, peer: Peer) -> None:
        self.handshaking = True
        self.passed = deque()
        self._open = open_inner
        self._who = peer
        self._agreed = ""
        self._inner: Conversation | None = None

    @property
    def pulls(self) -> bool:
        return self._inner is not None and self._inner.pulls

    @property
    def waits(self) -> bool:
        return self._inner is not None and not self.done and self._inner.waits

    def closed(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.closed()

    @abstractmethod
    def _say(self, data: bytes) -> None:
        """Queue what the inner conversation says; it may be nothing."""

    def _give_up(self, failure: BaseException | None) -> None:
        """It is over; `failure` is why, if there is anything to complain about."""
        self.done = True
        self.failure = self.failure or failure

    def _begin(self, peer: Peer, post: Post) -> None:
        """We are ready: open the inner conversation, and let it speak first."""
        try:
            self._inner = self._open(peer, post)
        except Exception as error:
            self.handshaking = False
            self._give_up(error)
        else:
            self._ask(self._inner.start)

    def _ask(self, call: Callable[..., bytes], *data: bytes) -> bytes:
        """Call the inner conversation, pass on what it says, and take over what it has come to."""
        said, error = b"", None
        try:
            said = call(*data)
        except Exception as raised:
            error = raised
        inner = self._inner
        if inner is not None:
            self.handshaking = inner.handshaking
            self.agreed = ", ".join(filter(None, (self._agreed, inner.agreed)))
            self.true_peer = inner.true_peer or self.true_peer
        self._say(said)
        if error is not None or (inner is not None and inner.done):
            self._give_up(error or (None if inner is None else inner.failure))
        return said
