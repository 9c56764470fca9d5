"""One connection's bookkeeping, without the connection: what every stream engine would do alike.

Stands between a conversation and whatever moves its bytes. It counts, reports events, turns an
exception of the service into the end of that one conversation, and knows when everything has been
said. It never touches a socket: a driver (`nonblocking.py`, `blocking.py`, `asyncio.py`) asks it what
to send and tells it what happened.
"""

from __future__ import annotations

import time

from bothends.engines.base import Job
from bothends.engines.rate_limit import Pace
from bothends.errors import HandshakeFailed, StreamBroken
from bothends.events import Cause, Closed, Ended, Established, Event, Failed, Opened, Received, Sent, Slowed
from bothends.services.base import Conversation, Peer, Post, nowhere
from bothends.sockets import Listener


class Exchange:
    """Drives one conversation. Every method returns what is to be sent.

    `over` turns true when the conversation has nothing more to say: send what is left, then close.
    `peer` is who it turned out to be, `accepted` who the system said it was when it came in.
    `rest`: seconds for which not to read, after what was just received.
    `pulls`: the conversation wants `more()` called whenever all has been sent.
    """

    __slots__ = (
        "_conversation",
        "_ended",
        "_handshaking",
        "_limits",
        "_observe",
        "_pace",
        "_slowed",
        "_witness",
        "accepted",
        "cause",
        "over",
        "peer",
        "pulls",
        "received",
        "rest",
        "sent",
    )

    def __init__(self, job: Job, listener: Listener, peer: Peer, post: Post = nowhere) -> None:
        self.peer = self.accepted = peer
        self.received = 0
        self.sent = 0
        self.over = False
        self.cause = Cause.PEER
        self._ended = False
        self._observe = job.observe
        self._witness = job.witness
        self._limits = job.limits
        self._slowed = False
        self.rest = 0.0
        self._pace = None if job.limits.rate is None else Pace(job.limits.rate, time.monotonic())
        if self._witness is not None:
            self._witness(Opened(peer.connection, peer.address, peer.local))
        self._conversation: Conversation = _SILENT
        self.pulls = False
        self._handshaking = False
        try:
            self._conversation = job.open(listener, peer, post)
        except Exception as error:
            self.fail(error)
        else:
            self.pulls = self._conversation.pulls
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
        if self._conversation.passed:
            self._tell_passed()
        if self._conversation.done:
            self._done()
        return data

    def receive(self, data: bytes) -> bytes:
        """A read gave these bytes, at least one."""
        self.received += len(data)
        if self._pace is not None:
            self._keep_pace(self._pace, len(data))
        if self._witness is not None and self._conversation.passed is None:
            self._witness(Received(self.peer.connection, self.peer.address, data))
        try:
            data = self._conversation.receive(data)
        except Exception as error:
            return self.fail(error)
        if self._handshaking and not self._conversation.handshaking:
            self._established()
        if self._conversation.passed:
            self._tell_passed()
        if self._conversation.done:
            self._done()
        return data

    def next_limit(self, began: float, moved: float) -> tuple[float, Cause] | None:
        """Which time limit comes next, and what passing it is called. For a connection that began then,
        and on which something last moved then, on the driver's clock."""
        limits = self._limits
        found: list[tuple[float, Cause]] = []
        if self._handshaking:
            # From the beginning: a handshake that comes in drops is no better than one that doesn't come.
            found.append((began + limits.handshake, Cause.HANDSHAKE))
        elif limits.idle is not None:
            found.append((moved + limits.idle, Cause.IDLE))
        if limits.life is not None:
            found.append((began + limits.life, Cause.LIFE))
        return min(found, default=None)

    def next_look(self, began: float, moved: float, now: float) -> float | None:
        """When to look at the limits again, as far as is known now."""
        limit = self.next_limit(began, moved)
        if self._handshaking and self._limits.idle is not None and limit is not None:
            return min(limit[0], now + self._limits.idle)  # the handshake may be over by then
        return None if limit is None else limit[0]

    def end(self) -> bytes:
        """A read gave 0 bytes: the peer has finished sending."""
        if self._witness is not None and not self._ended:
            self._witness(Ended(self.peer.connection, self.peer.address))
        return self.finish(Cause.PEER)

    def finish(self, cause: Cause) -> bytes:
        """Nothing more will be read, for this cause: the conversation's last word."""
        if self.over or self._ended:
            return b""
        self._ended = True
        self.cause = cause
        try:
            data = self._conversation.end() if cause is Cause.PEER else self._conversation.leave()
        except Exception as error:
            return self.fail(error)
        if self._conversation.passed:
            self._tell_passed()
        if self._conversation.failure is not None:
            self.fail(self._conversation.failure)
        # A conversation that pulls may have more to say after the peer's last word; any other has not.
        if not self.pulls or self._conversation.done:
            self.over = True
        return data

    def more(self) -> bytes:
        """All has been sent: what comes next, or b"" for nothing now."""
        if self.over or not self.pulls:
            return b""
        try:
            data = self._conversation.more()
        except Exception as error:
            return self.fail(error)
        if self._conversation.passed:
            self._tell_passed()
        if self._conversation.done:
            self._done()
        elif not data and self._ended and not self._conversation.waits:
            self.over = True
        return data

    def took(self, data: bytes | memoryview) -> None:
        """The system took these bytes."""
        self.sent += len(data)
        if self._conversation.passed is not None:
            self._tell_passed()
        elif self._witness is not None:
            self._witness(Sent(self.peer.connection, self.peer.address, bytes(data)))

    def fail(self, error: BaseException) -> bytes:
        """The service, or what it wanted sent, broke a rule: this conversation is over. Returns b""."""
        self.over = True
        self.cause = Cause.BROKEN if isinstance(error, HandshakeFailed | StreamBroken) else Cause.FAILED
        if self._observe is not None:
            self._observe(Failed(self.peer.connection, self.peer.address, error))
        return b""

    def close(self, cause: Cause | None = None) -> None:
        """The connection is gone; `cause` where it is another than the one that ended the talk."""
        if cause is not None:
            self.cause = cause
        conversation, self._conversation = self._conversation, _SILENT
        if conversation is _CLOSED:
            return
        self.over = True
        self._conversation = _CLOSED
        try:
            conversation.closed()
        except Exception as error:
            self.fail(error)
        if self._witness is not None:
            self._witness(
                Closed(self.peer.connection, self.peer.address, self.cause, self.received, self.sent)
            )

    def _established(self) -> None:
        """What wraps the stream is ready, and may have told who the peer is."""
        self._handshaking = False
        self.pulls = self._conversation.pulls
        was = self.peer.address
        self.peer = self._conversation.true_peer or self.peer
        if self._witness is not None:
            agreed = self._conversation.agreed
            self._witness(Established(self.peer.connection, self.peer.address, was, agreed))

    def _tell_passed(self) -> None:
        """What has passed inside of what wraps the stream."""
        passed = self._conversation.passed
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
                self._ended = True
                told = Ended(peer.connection, peer.address)
            if self._witness is not None:
                self._witness(told)

    def _keep_pace(self, pace: Pace, size: int) -> None:
        now = time.monotonic()
        if pace.is_rested(now):
            self._slowed = False
        self.rest = pace.read(size, now)
        if self.rest and not self._slowed:
            self._slowed = True
            if self._observe is not None:
                rate = self._limits.rate or 0
                self._observe(Slowed(self.peer.connection, self.peer.address, rate))

    def _done(self) -> None:
        self.over = True
        if self._conversation.failure is not None:
            self.fail(self._conversation.failure)
        elif not self._ended:
            self.cause = Cause.SERVICE


class _Silent(Conversation):
    """Stands in before a conversation is open and after it is closed."""

    def receive(self, data: bytes) -> bytes:
        return b""


_SILENT = _Silent()
_CLOSED = _Silent()
