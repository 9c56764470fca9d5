"""What TLS and the PROXY header have in common: a conversation around another one."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from bothends.services.base import Conversation, Peer, Push

# Opens what is to be wrapped: `Service.open`, or another layer's opener.
ConversationFactory: TypeAlias = Callable[[Peer, Push], Conversation]


class LayerConversation(Conversation):
    """A conversation around another, which is opened only when the outer one is ready.

    A subclass says how bytes come in and go out. What the inner conversation raises ends this one, and
    is told as its failure, after its last word.
    """

    def __init__(self, open_inner: ConversationFactory, peer: Peer) -> None:
        self.handshaking = True
        self.inner_traffic = deque()
        self._open_inner = open_inner
        self._peer = peer
        self._own_handshake_info = ""
        self._inner: Conversation | None = None

    @property
    def wants_pull(self) -> bool:
        return self._inner is not None and self._inner.wants_pull

    @property
    def more_later(self) -> bool:
        return self._inner is not None and not self.done and self._inner.more_later

    def closed(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.closed()

    @abstractmethod
    def _send_inner(self, data: bytes) -> None:
        """Queue what the inner conversation says; it may be nothing."""

    def _finish(self, failure: BaseException | None) -> None:
        """It is over; `failure` is why, if there is anything to complain about."""
        self.done = True
        self.failure = self.failure or failure

    def _start_inner(self, peer: Peer, push: Push) -> None:
        """We are ready: open the inner conversation, and let it speak first."""
        try:
            self._inner = self._open_inner(peer, push)
        except Exception as error:
            self.handshaking = False
            self._finish(error)
        else:
            self._call_inner(self._inner.start)

    def _call_inner(self, call: Callable[..., bytes], *data: bytes) -> bytes:
        """Call the inner conversation, pass on what it says, and take over what it has come to."""
        said, error = b"", None
        try:
            said = call(*data)
        except Exception as raised:
            error = raised
        inner = self._inner
        if inner is not None:
            self.handshaking = inner.handshaking
            self.handshake_info = ", ".join(filter(None, (self._own_handshake_info, inner.handshake_info)))
            self.proxied_peer = inner.proxied_peer or self.proxied_peer
        self._send_inner(said)
        if error is not None or (inner is not None and inner.done):
            self._finish(error or (None if inner is None else inner.failure))
        return said
