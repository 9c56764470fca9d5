"""The life of one connection, without a socket: its states, its limits, and what to do next.

Rules:

1. The states and transitions are one table, TRANSITIONS. Only `_step` changes the state, and an input that
   the table does not have is a bug of the caller (KeyError). The core in C works by this table, too.
2. A finished answer ends with FIN: the sending direction is shut down once everything is sent, and input is
   read and discarded until the peer's EOF, for `limits.linger` seconds at most. close() with unread input
   would make the kernel send RST, which can destroy the last reply on its way (RFC 1122, 4.2.2.13).
3. A conversation that is cut off with something left to send ends with RST (RFC 9293, 3.10.5), because EOF
   would make a truncated answer look whole. A pull producer that has not finished has something left, even
   if the kernel has taken every piece so far. After our FIN nothing is left, and no RST is sent.
4. Above `limits.unsent` unsent bytes nothing is read from the peer, until half of them are sent. So the
   peer's sends block in turn, and the memory for each connection stays bounded.

An adapter (`loop_connection.py` with `nonblocking.py` or `asyncio.py`, and `blocking.py`) moves the bytes. It
passes to the core what it has received and sent, sends what the core returns, and after each step calls
`settle()` and does what it says.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Final

from bothends.engines.base import DRAIN_IDLE, Limits
from bothends.engines.driver import ConversationDriver
from bothends.events import CloseReason


class State(enum.IntEnum):
    """A connection's state. In the first three the conversation may still send more."""

    OPEN = 0
    """Receiving and sending."""
    PEER_DONE = 1
    """The peer has sent EOF; the conversation is still sending."""
    STOPPED = 2
    """The server takes no more input (a limit, draining); the conversation is still sending."""
    FLUSHING = 3
    """The conversation has finished; some of its output is unsent."""
    CLOSING = 4
    """The same after the peer's EOF."""
    LINGERING = 5
    """Everything is sent, and our FIN; waiting for the peer's EOF."""
    CLOSED = 6
    """The socket is closed, or must be closed now."""


class Input(enum.IntEnum):
    """What can happen to a connection."""

    PEER_EOF = 0
    """A read returned EOF."""
    STOP = 1
    """Take no more input, and end the conversation: a limit with nothing left to send, or draining."""
    FINISHED = 2
    """The conversation sends nothing more."""
    FLUSHED = 3
    """The last byte of a finished conversation is sent."""
    CUT = 4
    """End it now: an abort, or a limit with something left to send."""
    LOST = 5
    """The connection failed: a reset, a timeout of the network."""
    LINGER_EXPIRED = 6
    """The peer has not sent EOF in time."""


class Action(enum.IntEnum):
    """What the adapter must do with the socket."""

    NONE = 0
    SHUTDOWN = 1
    """Send FIN: shutdown(SHUT_WR). Go on reading."""
    CLOSE = 2
    """Close the socket."""
    RESET = 3
    """Discard unsent data, and close the socket with RST."""


_S, _I, _A = State, Input, Action

# fmt: off
TRANSITIONS: Final[Mapping[tuple[State, Input], tuple[State, Action]]] = {
    (_S.OPEN, _I.PEER_EOF):            (_S.PEER_DONE, _A.NONE),
    (_S.OPEN, _I.STOP):                (_S.STOPPED,   _A.NONE),
    (_S.OPEN, _I.FINISHED):            (_S.FLUSHING,  _A.NONE),
    (_S.OPEN, _I.CUT):                 (_S.CLOSED,    _A.RESET),
    (_S.OPEN, _I.LOST):                (_S.CLOSED,    _A.CLOSE),
    (_S.PEER_DONE, _I.STOP):           (_S.PEER_DONE, _A.NONE),
    (_S.PEER_DONE, _I.FINISHED):       (_S.CLOSING,   _A.NONE),
    (_S.PEER_DONE, _I.CUT):            (_S.CLOSED,    _A.RESET),
    (_S.PEER_DONE, _I.LOST):           (_S.CLOSED,    _A.CLOSE),
    (_S.STOPPED, _I.PEER_EOF):         (_S.PEER_DONE, _A.NONE),
    (_S.STOPPED, _I.STOP):             (_S.STOPPED,   _A.NONE),
    (_S.STOPPED, _I.FINISHED):         (_S.FLUSHING,  _A.NONE),
    (_S.STOPPED, _I.CUT):              (_S.CLOSED,    _A.RESET),
    (_S.STOPPED, _I.LOST):             (_S.CLOSED,    _A.CLOSE),
    (_S.FLUSHING, _I.PEER_EOF):        (_S.CLOSING,   _A.NONE),
    (_S.FLUSHING, _I.FLUSHED):         (_S.LINGERING, _A.SHUTDOWN),
    (_S.FLUSHING, _I.CUT):             (_S.CLOSED,    _A.RESET),
    (_S.FLUSHING, _I.LOST):            (_S.CLOSED,    _A.CLOSE),
    (_S.CLOSING, _I.FLUSHED):          (_S.CLOSED,    _A.CLOSE),
    (_S.CLOSING, _I.CUT):              (_S.CLOSED,    _A.RESET),
    (_S.CLOSING, _I.LOST):             (_S.CLOSED,    _A.CLOSE),
    (_S.LINGERING, _I.PEER_EOF):       (_S.CLOSED,    _A.CLOSE),
    (_S.LINGERING, _I.CUT):            (_S.CLOSED,    _A.CLOSE),
    (_S.LINGERING, _I.LOST):           (_S.CLOSED,    _A.CLOSE),
    (_S.LINGERING, _I.LINGER_EXPIRED): (_S.CLOSED,    _A.CLOSE),
}
# fmt: on

# The same values under names that are faster to read than the attributes of an enum.
OPEN: Final = State.OPEN
STOPPED: Final = State.STOPPED
SHUTDOWN: Final = Action.SHUTDOWN
CLOSE: Final = Action.CLOSE
RESET: Final = Action.RESET

_FLUSHING = State.FLUSHING
_CLOSING, _LINGERING, _CLOSED = State.CLOSING, State.LINGERING, State.CLOSED
_NONE = Action.NONE

# The states in which the peer has nothing more to send.
AT_EOF: Final = frozenset({State.PEER_DONE, State.CLOSING, State.CLOSED})


class ConnectionState:
    """One connection: a conversation, its state, and its time limits. All times are on the caller's clock.

    Methods that return bytes return the data to send next. After sending it the adapter calls `settle()`.

    Args:
        driver: the conversation.
        limits: the server's limits.
        now: when the connection was established.

    Attributes:
        state: see TRANSITIONS.
        high_water, low_water: unsent bytes above which reading pauses, and at which it resumes (rule 4).
        reading_paused: whether too much is unsent.
        last_sent: when data was last sent. The adapter sets it.
    """

    __slots__ = (
        "_action",
        "_cause",
        "_cut_at",
        "_last_discarded",
        "_limits",
        "_opened_at",
        "_timed",
        "driver",
        "high_water",
        "last_sent",
        "low_water",
        "reading_paused",
        "state",
    )

    def __init__(self, driver: ConversationDriver, limits: Limits, now: float) -> None:
        self.driver = driver
        self.state = OPEN
        self.reading_paused = False
        driver.last_received = self._last_discarded = self.last_sent = self._opened_at = now
        self._limits = limits
        self._timed = limits.idle is not None or limits.life is not None
        self.high_water = limits.unsent
        self.low_water = limits.unsent // 2
        self._action = _NONE
        self._cause: CloseReason | None = None
        self._cut_at: float | None = None  # the end of the linger timeout, or of a limit's last answer

    # What happens ----------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> bytes:
        """Take the bytes of one read, at least one. Discards them if the conversation has ended.

        While the state is OPEN and the driver is not `watched`, an adapter may call the conversation itself.
        """
        if self.state is OPEN:
            return self.driver.receive(data, now)
        self._last_discarded = now
        return b""

    def receive_eof(self, now: float) -> bytes:
        """Take the peer's EOF."""
        self.driver.last_received = now
        lingers = self.state is _LINGERING
        self._step(Input.PEER_EOF)
        return b"" if lingers else self.driver.receive_eof()

    def produce(self) -> bytes:
        """Return the next data of a pull producer, or b"". Call when everything has been sent."""
        return self.driver.produce() if self.state <= STOPPED else b""

    def expire(self, now: float, unsent: int) -> bytes:
        """Apply the time limits that have expired, with `unsent` bytes queued."""
        if self.state is _CLOSED:
            return b""
        driver = self.driver
        if driver.paused_until is not None and now >= driver.paused_until:
            driver.paused_until = None
        if self._cut_at is not None:
            if now >= self._cut_at:
                self._step(Input.LINGER_EXPIRED if self.state is _LINGERING else Input.CUT)
            return b""
        limit = self.deadline()
        if limit is None or now < limit[0]:
            return b""
        if unsent or (driver.has_more and self.state <= STOPPED):
            self.abort(limit[1])
            return b""
        # The last answer of the conversation gets as long as the peer's EOF after it.
        self._cut_at = now + self._limits.linger
        return self.stop(limit[1])

    def drain(self, last_check: float, unsent: int) -> bytes:
        """End the conversation if it is idle, because the server is draining.

        `last_check` is when the engine last checked: all data that had arrived by then has been read. A
        producer that has not finished continues. A peer that is silent after our FIN is not waited for.
        """
        if last_check - self.last_received < DRAIN_IDLE:
            return b""
        if self.state is _LINGERING:
            self._step(Input.LINGER_EXPIRED)
        if self.state > STOPPED:
            return b""
        if unsent and not self.driver.wants_pull:
            return b""
        return self.stop(CloseReason.DRAINED)

    def stop(self, cause: CloseReason) -> bytes:
        """Take no more input, and end the conversation. Returns its last answer."""
        if self.state > STOPPED:
            return b""
        self._step(Input.STOP)
        data = self.driver.stop_reading(cause)
        if not self.driver.has_more:
            self.driver.finished = True
        return data

    def abort(self, cause: CloseReason) -> None:
        """End the connection now."""
        self._end(Input.CUT, cause)

    def lose(self, cause: CloseReason) -> None:
        """The connection has failed: nothing more can be received or sent."""
        self._end(Input.LOST, cause)

    def _end(self, what: Input, cause: CloseReason) -> None:
        if self.state is _CLOSED:
            return
        if self.state is not _LINGERING:
            self._cause = cause
        self._step(what)

    # What to do next -------------------------------------------------------------------------------

    def settle(self, now: float, unsent: int) -> Action:
        """Return what to do with the socket now, with `unsent` bytes queued. Call after each step."""
        if self.driver.finished and self.state <= STOPPED:
            if self.driver.truncated:
                self.abort(self.driver.cause)
            else:
                self._step(Input.FINISHED)
        if not unsent and (self.state is _FLUSHING or self.state is _CLOSING):
            self._step(Input.FLUSHED)
            self._cut_at = now + self._limits.linger
        if unsent > self.high_water:
            self.reading_paused = True
        elif unsent <= self.low_water:
            self.reading_paused = False
        action = self._action
        if action is not _NONE:
            self._action = _NONE
        return action

    @property
    def wants_read(self) -> bool:
        """Whether to read from the peer. After the last answer input is discarded: a peer that sends all of
        its input before it reads would wait forever otherwise."""
        if self.state is OPEN:
            return not self.reading_paused and self.driver.paused_until is None
        return self.state not in AT_EOF

    @property
    def last_received(self) -> float:
        """When data last arrived, whether it was taken or discarded."""
        return max(self.driver.last_received, self._last_discarded)

    @property
    def last_activity(self) -> float:
        """When data was last taken or sent."""
        return max(self.driver.last_received, self.last_sent)

    @property
    def wants_push(self) -> bool:
        """Whether pushed data is still sent: not after the conversation's last answer."""
        return self.state <= STOPPED and not self.driver.finished

    def deadline(self) -> tuple[float, CloseReason] | None:
        """Return when the next limit expires, and the reason to close the connection then, or None."""
        if self._cut_at is not None:
            return self._cut_at, self.driver.cause
        return self._next_limit(self.last_activity)

    def next_deadline(self, now: float) -> float | None:
        """Return when to call `expire` next, or None for never."""
        if self.state is _CLOSED:
            return None
        if self._cut_at is not None:
            return self._cut_at
        if not (self._timed or self.driver.handshaking or self.driver.paused_until is not None):
            return None
        limit = self._next_limit(self.last_activity)
        deadline = math.inf if limit is None else limit[0]
        if self.driver.handshaking and self._limits.idle is not None:
            deadline = min(deadline, now + self._limits.idle)  # applies once the handshake is done
        if self.driver.paused_until is not None:
            deadline = min(deadline, self.driver.paused_until)
        return deadline if deadline < math.inf else None

    def blocking_timeout(self, now: float) -> float | None:
        """Return for how many seconds a call that begins now may block, or None for no limit.

        Assumes that data has just been exchanged, so that it is the same in each call. If the call times out,
        `deadline` tells whether a limit has expired.
        """
        if self._cut_at is not None:
            return self._cut_at - now
        limit = self._next_limit(now)
        return None if limit is None else limit[0] - now

    def _next_limit(self, last_activity: float) -> tuple[float, CloseReason] | None:
        limits = self._limits
        first: tuple[float, CloseReason] | None = None
        if self.driver.handshaking:
            # From the start of the connection, so that a peer cannot prolong it by sending single bytes.
            first = self._opened_at + limits.handshake, CloseReason.HANDSHAKE
        elif limits.idle is not None:
            first = last_activity + limits.idle, CloseReason.IDLE
        if limits.life is not None:
            life = self._opened_at + limits.life, CloseReason.LIFE
            first = life if first is None else min(first, life)
        return first

    def closed(self) -> None:
        """End the conversation. Call once the socket is closed."""
        self.state = _CLOSED
        self.driver.close(self._cause)

    def _step(self, what: Input) -> None:
        self.state, action = TRANSITIONS[self.state, what]
        if action is not _NONE:
            self._action = action
