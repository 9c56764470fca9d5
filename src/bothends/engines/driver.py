"""One connection's bookkeeping, without the connection: what every stream engine would do alike.

Stands between a conversation and whatever moves its bytes. It counts, reports events, turns an
exception of the service into the end of that one conversation, and knows when everything has been
said. It never touches a socket: a driver (`nonblocking.py`, `blocking.py`, `asyncio.py`) asks it what
to send and tells it what happened.
"""

from __future__ import annotations

import time

from bothends.engines.base import EngineContext
from bothends.engines.rate_limit import TokenBucket
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
    """Drives one conversation. Every method returns what is to be sent.

    `over` turns true when the conversation has nothing more to say: send what is left, then close.
    `peer` is who it turned out to be, `accepted` who the system said it was when it came in.
    `rest`: seconds for which not to read, after what was just received.
    `pulls`: the conversation wants `more()` called whenever all has been sent.
    """

    __slots__ = (
        "_conversation",
        "_handshaking",
        "_limits",
        "_observe",
        "_peer_eof",
        "_rate_limited",
        "_token_bucket",
        "_traffic_observer",
        "accepted_peer",
        "cause",
        "finished",
        "peer",
        "read_pause",
        "received",
        "sent",
        "wants_pull",
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
        self._limits = context.limits
        self._rate_limited = False
        self.read_pause = 0.0
        self._token_bucket = (
            None if context.limits.rate is None else TokenBucket(context.limits.rate, time.monotonic())
        )
        if self._traffic_observer is not None:
            self._traffic_observer(Accepted(peer.connection, peer.address, peer.local))
        self._conversation: Conversation = _NOT_OPEN
        self.wants_pull = False
        self._handshaking = False
        try:
            self._conversation = context.open_conversation(listener, peer, push)
        except Exception as error:
            self.fail(error)
        else:
            self.wants_pull = self._conversation.wants_pull
            self._handshaking = self._conversation.handshaking

    @property
    def handshaking(self) -> bool:
        """Which limit counts: the handshake's, or the idle one."""
        return self._handshaking

    def start(self) -> bytes:
        """The connection is there."""
        try:
            data = self._conversation.start()
        except Exception as error:
            return self.fail(error)
        if self._conversation.inner_traffic:
            self._emit_inner_traffic()
        if self._conversation.done:
            self._on_conversation_done()
        return data

    def receive(self, data: bytes) -> bytes:
        """A read gave these bytes, at least one."""
        self.received += len(data)
        if self._token_bucket is not None:
            self._apply_rate_limit(self._token_bucket, len(data))
        if self._traffic_observer is not None and self._conversation.inner_traffic is None:
            self._traffic_observer(Received(self.peer.connection, self.peer.address, data))
        try:
            data = self._conversation.receive(data)
        except Exception as error:
            return self.fail(error)
        if self._handshaking and not self._conversation.handshaking:
            self._handshake_done()
        if self._conversation.inner_traffic:
            self._emit_inner_traffic()
        if self._conversation.done:
            self._on_conversation_done()
        return data

    def next_limit(self, opened_at: float, last_activity: float) -> tuple[float, CloseReason] | None:
        """Which time limit comes next, and what passing it is called. For a connection that began then,
        and on which something last moved then, on the driver's clock."""
        limits = self._limits
        found: list[tuple[float, CloseReason]] = []
        if self._handshaking:
            # From the beginning: a handshake that comes in drops is no better than one that doesn't come.
            found.append((opened_at + limits.handshake, CloseReason.HANDSHAKE))
        elif limits.idle is not None:
            found.append((last_activity + limits.idle, CloseReason.IDLE))
        if limits.life is not None:
            found.append((opened_at + limits.life, CloseReason.LIFE))
        return min(found, default=None)

    def next_deadline(self, opened_at: float, last_activity: float, now: float) -> float | None:
        """When to look at the limits again, as far as is known now."""
        limit = self.next_limit(opened_at, last_activity)
        if self._handshaking and self._limits.idle is not None and limit is not None:
            return min(limit[0], now + self._limits.idle)  # the handshake may be over by then
        return None if limit is None else limit[0]

    def receive_eof(self) -> bytes:
        """A read gave 0 bytes: the peer has finished sending."""
        if self._traffic_observer is not None and not self._peer_eof:
            self._traffic_observer(PeerEof(self.peer.connection, self.peer.address))
        return self.stop_reading(CloseReason.PEER)

    def stop_reading(self, cause: CloseReason) -> bytes:
        """Nothing more will be read, for this cause: the conversation's last word."""
        if self.finished or self._peer_eof:
            return b""
        self._peer_eof = True
        self.cause = cause
        try:
            data = self._conversation.end() if cause is CloseReason.PEER else self._conversation.close()
        except Exception as error:
            return self.fail(error)
        if self._conversation.inner_traffic:
            self._emit_inner_traffic()
        if self._conversation.failure is not None:
            self.fail(self._conversation.failure)
        # A conversation that pulls may have more to say after the peer's last word; any other has not.
        if not self.wants_pull or self._conversation.done:
            self.finished = True
        return data

    def produce(self) -> bytes:
        """All has been sent: what comes next, or b"" for nothing now."""
        if self.finished or not self.wants_pull:
            return b""
        try:
            data = self._conversation.produce()
        except Exception as error:
            return self.fail(error)
        if self._conversation.inner_traffic:
            self._emit_inner_traffic()
        if self._conversation.done:
            self._on_conversation_done()
        elif not data and self._peer_eof and not self._conversation.more_later:
            self.finished = True
        return data

    def bytes_sent(self, data: bytes | memoryview) -> None:
        """The system took these bytes."""
        self.sent += len(data)
        if self._conversation.inner_traffic is not None:
            self._emit_inner_traffic()
        elif self._traffic_observer is not None:
            self._traffic_observer(Sent(self.peer.connection, self.peer.address, bytes(data)))

    def fail(self, error: BaseException) -> bytes:
        """The service, or what it wanted sent, broke a rule: this conversation is over. Returns b""."""
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
        """The connection is gone; `cause` where it is another than the one that ended the talk."""
        if cause is not None:
            self.cause = cause
        conversation, self._conversation = self._conversation, _NOT_OPEN
        if conversation is _CLOSED:
            return
        self.finished = True
        self._conversation = _CLOSED
        try:
            conversation.closed()
        except Exception as error:
            self.fail(error)
        if self._traffic_observer is not None:
            self._traffic_observer(
                Closed(self.peer.connection, self.peer.address, self.cause, self.received, self.sent)
            )

    def _handshake_done(self) -> None:
        """What wraps the stream is ready, and may have told who the peer is."""
        self._handshaking = False
        self.wants_pull = self._conversation.wants_pull
        was = self.peer.address
        self.peer = self._conversation.proxied_peer or self.peer
        if self._traffic_observer is not None:
            agreed = self._conversation.handshake_info
            self._traffic_observer(HandshakeCompleted(self.peer.connection, self.peer.address, was, agreed))

    def _emit_inner_traffic(self) -> None:
        """What has passed inside of what wraps the stream."""
        passed = self._conversation.inner_traffic
        while passed:
            try:
                heard, data = passed.popleft()
            except IndexError:
                return  # whoever sends what is posted has told it, in another thread
            peer = self.peer
            told: Event
            if not heard:
                told = Sent(peer.connection, peer.address, data)
            elif data:
                told = Received(peer.connection, peer.address, data)
            else:
                # It has been told itself, and sees to what follows from it.
                self._peer_eof = True
                told = PeerEof(peer.connection, peer.address)
            if self._traffic_observer is not None:
                self._traffic_observer(told)

    def _apply_rate_limit(self, bucket: TokenBucket, size: int) -> None:
        now = time.monotonic()
        if bucket.is_full(now):
            self._rate_limited = False
        self.read_pause = bucket.consume(size, now)
        if self.read_pause and not self._rate_limited:
            self._rate_limited = True
            if self._observe is not None:
                rate = self._limits.rate or 0
                self._observe(RateLimited(self.peer.connection, self.peer.address, rate))

    def _on_conversation_done(self) -> None:
        self.finished = True
        if self._conversation.failure is not None:
            self.fail(self._conversation.failure)
        elif not self._peer_eof:
            self.cause = CloseReason.SERVICE


class _NullConversation(Conversation):
    """Stands in before a conversation is open and after it is closed."""

    def receive(self, data: bytes) -> bytes:
        return b""


_NOT_OPEN = _NullConversation()
_CLOSED = _NullConversation()
