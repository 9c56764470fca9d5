"""The base of TLS and the PROXY protocol: a conversation around another conversation."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from bothends.services.base import Conversation, Peer, Push

# Opens the inner conversation: `Service.open`, or the factory of another layer.
ConversationFactory: TypeAlias = Callable[[Peer, Push], Conversation]


class LayerConversation(Conversation):
    """A conversation around an inner one, which is opened once the handshake is complete.

    A subclass decodes received bytes and encodes the output of the inner conversation. An exception of the
    inner conversation ends this one and becomes its `failure`; output queued before it is still sent.
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
        """Queue output of the inner conversation, which may be empty."""

    def _finish(self, failure: BaseException | None) -> None:
        """End the conversation. `failure` is the error, if there is one; the first error is kept."""
        self.done = True
        self.failure = self.failure or failure

    def _start_inner(self, peer: Peer, push: Push) -> None:
        """Open the inner conversation and send its initial output."""
        try:
            self._inner = self._open_inner(peer, push)
        except Exception as error:
            self.handshaking = False
            self._finish(error)
        else:
            self._call_inner(self._inner.start)

    def _call_inner(self, call: Callable[..., bytes], *data: bytes) -> bytes:
        """Call the inner conversation, send its output, and copy its state. Returns its output."""
        output, error = b"", None
        try:
            output = call(*data)
        except Exception as raised:
            error = raised
        inner = self._inner
        if inner is not None:
            self.handshaking = inner.handshaking
            self.handshake_info = ", ".join(filter(None, (self._own_handshake_info, inner.handshake_info)))
            self.proxied_peer = inner.proxied_peer or self.proxied_peer
        self._send_inner(output)
        if error is not None or (inner is not None and inner.done):
            self._finish(error or (None if inner is None else inner.failure))
        return output
