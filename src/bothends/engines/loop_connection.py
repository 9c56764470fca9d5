"""One connection of an event loop, whichever way its bytes are moved.

Connects a conversation and its state (`connection_state.py`) to an event loop. A subclass moves the bytes:
`nonblocking.py` with recv() and send(), `asyncio.py` with a transport. It passes to the core what arrives,
sends what the core returns with `_write`, and implements the five methods below that act on the socket.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from bothends.engines.base import EngineContext
from bothends.engines.connection_state import CLOSE, RESET, SHUTDOWN, STOPPED, ConnectionState
from bothends.engines.driver import ConversationDriver
from bothends.events import CloseReason
from bothends.services.base import Peer, discard_push
from bothends.sockets import Listener


class ConnectionLoop(Protocol):
    """The event loop, as a connection sees it."""

    @property
    @abstractmethod
    def now(self) -> float:
        """Seconds on the loop's clock."""

    @abstractmethod
    def schedule(self, connection: LoopConnection, deadline: float, /) -> None:
        """Call `connection.on_timer(now)` at `deadline` or soon after."""

    @abstractmethod
    def connection_closed(self, connection: LoopConnection, /) -> None:
        """Called when the connection has closed its socket, or is about to: forget it."""


class LoopConnection(ABC):
    """One connection of an event loop.

    Args:
        loop: the event loop.
        context: the context of this connection.
        listener: the listener that accepted it.
        peer: the peer.

    Attributes:
        core: its state and its limits.
        driver: its conversation.
        slot: of the timer wheel.
    """

    __slots__ = ("_loop", "_pushed_early", "_pushed_limit", "_stalled", "core", "driver", "slot")

    def __init__(self, loop: ConnectionLoop, context: EngineContext, listener: Listener, peer: Peer) -> None:
        self.slot: int | None = None
        self._loop = loop
        self._pushed_early: bytes | None = b""  # pushed while the conversation is being opened
        self._pushed_limit = context.limits.posted
        self._stalled = False
        push = self._push if context.service.pushes else discard_push
        self.driver = ConversationDriver(context, listener, peer, push)
        self.core = ConnectionState(self.driver, context.limits, loop.now)

    def start(self) -> None:
        """Start the conversation. Call once the loop watches the connection."""
        self._schedule()
        early, self._pushed_early = self._pushed_early or b"", None
        data, driver = early + self.driver.start(), self.driver
        if data or driver.finished or driver.wants_pull:
            self._write(data)

    # Called by the loop ----------------------------------------------------------------------

    def on_timer(self, now: float) -> float | None:
        """Apply the time limits. Returns the next deadline, or None if there is none."""
        if self.is_closing:
            return None
        if self._stalled:
            self.close(CloseReason.STALLED)
            return None
        self._write(self.core.expire(now, self.unsent))
        return self.core.next_deadline(now)

    def drain(self, last_check: float) -> None:
        """End the conversation if it is idle, as in `ConnectionState.drain`."""
        if not self.is_closing:
            self._write(self.core.drain(last_check, self.unsent))

    def close(self, cause: CloseReason) -> None:
        """End the connection now."""
        self.core.abort(cause)
        self._settle()

    # Of the subclass -------------------------------------------------------------------------

    @property
    @abstractmethod
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""

    @property
    @abstractmethod
    def is_closing(self) -> bool:
        """Whether the socket is closed, or nothing more can be sent and it will be closed."""

    @abstractmethod
    def _write(self, data: bytes) -> None:
        """Send what a method of the core or the driver returned, then do what follows from the call."""

    @abstractmethod
    def _queue(self, data: bytes) -> None:
        """Queue data, at least one byte. May send it, but not close the connection."""

    @abstractmethod
    def _send_fin(self) -> None:
        """Shut down the sending direction. Everything has been sent."""

    @abstractmethod
    def _close_socket(self, *, reset: bool) -> None:
        """Close the socket; with `reset`, discard unsent data and send RST."""

    @abstractmethod
    def _watch(self, *, produced: bool) -> None:
        """Read only if `core.wants_read`, and call `_settle` once everything is sent.

        `produced`: a pull producer may have more, so call `_settle` in any case, in the next iteration.
        """

    # What to do next -------------------------------------------------------------------------

    def _settle(self) -> None:
        """Call the pull producer, do what the core says, and watch for the events it waits for."""
        if self.is_closing:
            return
        core, driver, now = self.core, self.driver, self._loop.now
        unsent = self.unsent
        produced = b""
        if driver.wants_pull and not unsent and (produced := core.produce()):
            # One piece in each iteration, so that a fast reader does not monopolize the loop.
            core.last_sent = now
            self._queue(produced)
            unsent = self.unsent
        action = core.settle(now, unsent)
        if action is CLOSE or action is RESET:
            self._close_socket(reset=action is RESET)
            return
        if action is SHUTDOWN:
            self._send_fin()
            self._schedule()
            if self.is_closing:
                return
        if driver.paused_until is not None:
            self._schedule()
        self._watch(produced=bool(produced) and core.state <= STOPPED)

    def _schedule(self) -> None:
        deadline = self.core.next_deadline(self._loop.now)
        if deadline is not None:
            self._loop.schedule(self, deadline)

    def _push(self, data: bytes) -> None:
        if self._pushed_early is not None:
            self._pushed_early += data
        elif data and self.core.wants_push and not (self._stalled or self.is_closing):
            self._queue(data)
            if self.unsent > self._pushed_limit:
                # Not at once, because closing this conversation may push to others, which may close in turn.
                self._stalled = True
                self._loop.schedule(self, self._loop.now)
