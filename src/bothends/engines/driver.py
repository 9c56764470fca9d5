"""Drive one conversation, without a socket: the part that all stream engines share.

The driver stands between a conversation and the code that moves its bytes (`nonblocking.py`, `blocking.py`,
`asyncio.py`), which reports what it received and sent, and sends what the driver returns. The driver counts
bytes, emits events, turns an exception of the service into the end of that conversation, and knows when the
conversation has nothing more to send.
"""

from __future__ import annotations

import time

from bothends.engines.base import EngineContext
from bothends.engines.client_limits import TokenBucket
from bothends.errors import HandshakeFailed, ProtocolViolation
from bothends.events import (
    Accepted,
    Closed,
    CloseReason,
    Event,
    HandshakeCompleted,
    PeerEof,
    RateLimited,
    Received,
    Sent,
    ServiceFailed,
)
from bothends.services.base import Conversation, Peer, Push, discard_push
from bothends.sockets import Listener


class ConversationDriver:
    """Drives one conversation. Methods that return bytes return the data to send next.

    Attributes:
        peer: the peer, as a PROXY header has it if there is one.
        accepted_peer: the peer as accept() reported it.
        conversation: the conversation.
        finished: the conversation sends nothing more. Send the unsent data, then close.
        handshaking: the handshake timeout applies, and not the idle timeout.
        cause: why the connection is closed.
        last_received: when `receive` last took data, on the caller's clock.
        paused_until: when to read again, because the peer exceeds the rate limit; or None.
        wants_pull: call `produce` whenever all data has been sent.
        has_more: a pull producer that may have more to send now: its last `produce` returned data.
        truncated: `produce` raised, so what has been sent is a part of an answer.
        received, sent: bytes on the socket, if it is watched.
        watched: a chunk concerns more than its conversation: an observer of connections or messages, the rate
            limit, a layer (TLS, PROXY), or a pull producer. If not, an adapter may call the conversation
            itself for a chunk, and need not report the bytes that it sends.
    """

    __slots__ = (
        "_message_observer",
        "_observe",
        "_peer_eof",
        "_rate_limited",
        "_token_bucket",
        "_traffic_observer",
        "accepted_peer",
        "cause",
        "conversation",
        "finished",
        "handshaking",
        "has_more",
        "last_received",
        "paused_until",
        "peer",
        "received",
        "sent",
        "truncated",
        "wants_pull",
        "watched",
    )

    def __init__(
        self, context: EngineContext, listener: Listener, peer: Peer, push: Push = discard_push
    ) -> None:
        self.peer = self.accepted_peer = peer
        self.received = 0
        self.sent = 0
        self.finished = False
        self.cause = CloseReason.PEER
        self._peer_eof = False
        self._observe = context.observe
        self._traffic_observer = context.traffic_observer
        self._message_observer = context.message_observer
        self._rate_limited = False
        self.last_received = 0.0
        self.paused_until: float | None = None
        self._token_bucket = (
            None if context.limits.rate is None else TokenBucket(context.limits.rate, time.monotonic())
        )
        if self._traffic_observer is not None:
            self._traffic_observer(Accepted(peer.connection, peer.address, peer.local))
        self.conversation: Conversation = _NOT_OPEN
        self.wants_pull = self.has_more = False
        self.truncated = False
        self.handshaking = False
        try:
            self.conversation = context.open_conversation(listener, peer, push)
        except Exception as error:
            self.fail(error)
        else:
            self.wants_pull = self.has_more = self.conversation.wants_pull
            self.handshaking = self.conversation.handshaking
        # A layer has inner traffic from the start, and stays watched: it may turn out to contain a producer.
        self.watched = (
            self._traffic_observer is not None
            or self._token_bucket is not None
            or self.handshaking
            or self.wants_pull
            or self.conversation.inner_traffic is not None
        )

    def start(self) -> bytes:
        """Called once, when the connection is established."""
        try:
            data = self.conversation.start()
        except Exception as error:
            return self.fail(error)
        if self.conversation.inner_traffic:
            self._emit_inner_traffic()
        if self.conversation.done:
            self.conversation_done()
        return data

    def receive(self, data: bytes, now: float) -> bytes:
        """Called with the bytes of one read, at least one, and the time."""
        self.last_received = now
        self.received += len(data)
        if self._token_bucket is not None:
            self._apply_rate_limit(self._token_bucket, len(data), now)
        if self._message_observer is not None and self.conversation.inner_traffic is None:
            self._message_observer(Received(self.peer.connection, self.peer.address, data))
        try:
            data = self.conversation.receive(data)
        except Exception as error:
            return self.fail(error)
        if self.handshaking and not self.conversation.handshaking:
            self._handshake_done()
        if self.conversation.inner_traffic:
            self._emit_inner_traffic()
        if self.conversation.done:
            self.conversation_done()
        return data

    def receive_eof(self) -> bytes:
        """Called when a read returns EOF: the peer has finished sending."""
        if self._message_observer is not None and not self._peer_eof:
            self._message_observer(PeerEof(self.peer.connection, self.peer.address))
        return self.stop_reading(CloseReason.PEER)

    def stop_reading(self, cause: CloseReason) -> bytes:
        """Called when nothing more will be read, because of `cause`. Returns the final data."""
        if self.finished or self._peer_eof:
            return b""
        self._peer_eof = True
        self.cause = cause
        try:
            data = self.conversation.end() if cause is CloseReason.PEER else self.conversation.close()
        except Exception as error:
            return self.fail(error)
        if self.conversation.inner_traffic:
            self._emit_inner_traffic()
        if self.conversation.failure is not None:
            self.fail(self.conversation.failure)
        # A pull producer may have more data to send after the peer's EOF; another conversation has none.
        if not self.wants_pull or self.conversation.done:
            self.finished = True
        return data

    def produce(self) -> bytes:
        """Called when all data has been sent. Returns the next data of a pull producer, or b"" for none."""
        if self.finished or not self.wants_pull:
            return b""
        try:
            data = self.conversation.produce()
        except Exception as error:
            self.truncated = True
            return self.fail(error)
        self.has_more = bool(data)
        if self.conversation.inner_traffic:
            self._emit_inner_traffic()
        if self.conversation.done:
            self.conversation_done()
        elif not data and self._peer_eof and not self.conversation.more_later:
            self.finished = True
        return data

    def bytes_sent(self, data: bytes | memoryview) -> None:
        """Called with bytes that the kernel, or a transport, accepted for sending."""
        self.sent += len(data)
        if self.conversation.inner_traffic is not None:
            self._emit_inner_traffic()
        elif self._message_observer is not None:
            self._message_observer(Sent(self.peer.connection, self.peer.address, bytes(data)))

    def fail(self, error: BaseException) -> bytes:
        """End the conversation because the service raised or its data cannot be sent. Returns b""."""
        self.finished = True
        self.cause = (
            CloseReason.BROKEN
            if isinstance(error, HandshakeFailed | ProtocolViolation)
            else CloseReason.FAILED
        )
        if self._observe is not None:
            self._observe(ServiceFailed(self.peer.connection, self.peer.address, error))
        return b""

    def close(self, cause: CloseReason | None = None) -> None:
        """Called when the connection is closed. `cause` replaces the cause recorded so far. Idempotent."""
        if cause is not None:
            self.cause = cause
        conversation, self.conversation = self.conversation, _NOT_OPEN
        if conversation is _CLOSED:
            return
        self.finished = True
        self.conversation = _CLOSED
        try:
            conversation.closed()
        except Exception as error:
            self.fail(error)
        if self._traffic_observer is not None:
            self._traffic_observer(
                Closed(self.peer.connection, self.peer.address, self.cause, self.received, self.sent)
            )

    def conversation_done(self) -> None:
        """Called when the conversation is `done`."""
        self.finished = True
        if self.conversation.failure is not None:
            self.fail(self.conversation.failure)
        elif not self._peer_eof:
            self.cause = CloseReason.SERVICE

    def _handshake_done(self) -> None:
        """Record the results of the handshake: a PROXY header may have changed the peer's address."""
        self.handshaking = False
        self.wants_pull = self.has_more = self.conversation.wants_pull
        was = self.peer.address
        self.peer = self.conversation.proxied_peer or self.peer
        if self._traffic_observer is not None:
            agreed = self.conversation.handshake_info
            self._traffic_observer(HandshakeCompleted(self.peer.connection, self.peer.address, was, agreed))

    def _emit_inner_traffic(self) -> None:
        """Emit the plaintext that a layer has logged, in order."""
        inner_traffic = self.conversation.inner_traffic
        while inner_traffic:
            try:
                is_received, data = inner_traffic.popleft()
            except IndexError:
                return  # another thread, which sends pushed data, has emitted it
            peer = self.peer
            event: Event
            if not is_received:
                event = Sent(peer.connection, peer.address, data)
            elif data:
                event = Received(peer.connection, peer.address, data)
            else:
                # The layer has called `end` of the inner conversation already.
                self._peer_eof = True
                event = PeerEof(peer.connection, peer.address)
            if self._message_observer is not None:
                self._message_observer(event)

    def _apply_rate_limit(self, bucket: TokenBucket, size: int, now: float) -> None:
        bucket_time = time.monotonic()
        if bucket.is_full(bucket_time):
            self._rate_limited = False
        pause = bucket.consume(size, bucket_time)
        self.paused_until = now + pause if pause else None
        if pause and not self._rate_limited:
            self._rate_limited = True
            if self._observe is not None:
                self._observe(RateLimited(self.peer.connection, self.peer.address, bucket.rate))


class _NullConversation(Conversation):
    """The conversation of a driver before one is open and after it is closed."""

    def receive(self, data: bytes) -> bytes:
        return b""


_NOT_OPEN = _NullConversation()
_CLOSED = _NullConversation()
