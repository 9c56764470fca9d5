"""Moving bytes between standard input, a connection and standard output, both ways at once.

1. Nothing is read before what was read last is gone: 64 KiB in each direction is all that is kept,
   and whoever is slow slows down the other end, not this one's memory.
2. One poll() watches all three. The socket is non-blocking. Standard input and output are not made so,
   for their description is shared with the shell and with whoever is at the other end of the pipe:
   they are read and written only when poll() says so, and written at most PIPE_BUF bytes at a time,
   which a pipe that is called writable takes without blocking (pipe(7)).
3. A reset may stand behind an answer that has arrived: when sending fails, reading goes on to its end,
   and only then is the failure told.
4. When to finish, to leave and to give up is decided by an `Ending`, which is pure.
"""

from __future__ import annotations

import errno
import os
import re
import select
import stat
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from bothends.client.blocking import Connection
from bothends.client.receive_buffer import CHUNK, LARGEST, Inbox
from bothends.errors import ConnectionLost, PeerError, SystemRefused, TimeLimit
from bothends.escaping import Escaper

# After the peer's EOF, how long an open but idle standard input may still bring something. A peer that
# has only half-closed still reads, so a file that is being sent is sent to its end; but a peer that is
# gone must not keep us waiting for someone to type.
GRACE: Final = 0.5

# One request: how long to wait before we finish. Many servers answer only at our EOF, some never close
# their side, and some stop answering at our EOF: so we finish when the answer seems complete, or when
# nothing comes although nothing is underway.
SETTLED: Final = 0.2
NO_WORD: Final = 1.0

PIPE_BUF: Final = select.PIPE_BUF


class Due(NamedTuple):
    """What is to be done, and when (on the clock that was passed in)."""

    at: float
    what: Literal["finish", "leave", "give up"]


@dataclass(slots=True)
class Ending:
    """When a pipe's exchange ends. Times are seconds; None means never.

    `quit_after`: once we have finished, how long nothing may come before we leave. `silence`: how long
    nothing may move at all. `now` is when it began.
    """

    quit_after: float | None
    silence: float | None
    now: float

    moved: float = 0.0
    came: float | None = None
    sent_all: float | None = None
    finished: float | None = None
    peer_ended: bool = False
    expected: int = 0  # ends of messages that still matter

    def __post_init__(self) -> None:
        self.moved = self.now

    def receives(self, messages: int, now: float) -> None:
        """Something came, with so many ends of lines or messages."""
        self.came = self.moved = now

    def due(self) -> Due | None:
        """What is next, unless something moves before."""
        return min(self._dues(), key=lambda due: due.at, default=None)

    def _dues(self) -> Iterable[Due]:
        if self.sent_all is not None and self.finished is None:
            yield Due(self._finishes(self.sent_all), "finish")
        if self.finished is not None and self.quit_after is not None and self._may_leave():
            yield Due(max(self.finished, self.came or 0.0) + self.quit_after, "leave")
        if self.peer_ended:
            yield Due(self.moved + GRACE, "leave")
        if self.silence is not None:
            yield Due(self.moved + self.silence, "give up")

    def _finishes(self, sent_all: float) -> float:
        return sent_all

    def _may_leave(self) -> bool:
        return True


@dataclass(slots=True)
class AnswerEnding(Ending):
    """When one request ends: as many messages as `expected` make an answer complete."""

    expected: int = 1

    def receives(self, messages: int, now: float) -> None:
        """See Ending.receives."""
        self.came = self.moved = now
        self.expected -= messages

    def _finishes(self, sent_all: float) -> float:
        if self.expected <= 0:
            return sent_all
        return sent_all + NO_WORD if self.came is None else max(self.came, sent_all) + SETTLED

    def _may_leave(self) -> bool:
        return self.came is not None  # no answer at all is not left but given up


class CrLf:
    """Gives each line the end CR LF. One that has it keeps it, wherever its bytes are cut."""

    def __init__(self) -> None:
        self._after_cr = False

    def feed(self, data: bytes) -> bytes:
        """What to send for these bytes."""
        if not data:
            return data
        whole = data[:1] == b"\n" and self._after_cr
        self._after_cr = data.endswith(b"\r")
        start = b"\n" if whole else b""
        return start + re.sub(rb"(?<!\r)\n", b"\r\n", data[len(start) :])


class Sink:
    """Where the peer's bytes go: a descriptor, with what it has not taken yet.

    With an `escaper` they are for eyes: escaped, and the last line ends. Without one they pass as they
    are; `separate` then keeps messages apart, a newline after each that has none.
    """

    def __init__(self, descriptor: int, escaper: Escaper | None = None, *, separate: bool = False) -> None:
        self.descriptor = descriptor
        self.pending = memoryview(b"")
        self._escaper = escaper
        self._separate = separate
        self._at_start = True
        mode = os.fstat(descriptor).st_mode
        waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
        self._most = PIPE_BUF if waits else CHUNK  # a file takes any amount at once
        self._poller = select.poll()
        self._poller.register(descriptor, select.POLLOUT)

    def put(self, data: bytes) -> None:
        """Take one read's bytes, or one message."""
        if self._separate and not data.endswith(b"\n"):
            data += b"\n"
        if self._escaper is not None:
            data = self._escaper.feed(data).encode()
        self._add(data)

    def write(self) -> None:
        """Write what the descriptor takes at once.

        Raises:
            BrokenPipeError: nobody reads it any more.
        """
        while self.pending and self._poller.poll(0):
            try:
                written = os.write(self.descriptor, self.pending[: self._most])
            except BlockingIOError:  # non-blocking by somebody else's will
                return
            self.pending = self.pending[written:]

    def flush(self) -> None:
        """Write everything, however long that takes."""
        while self.pending:
            self._poller.poll()
            self.write()

    def end(self) -> None:
        """Nothing more comes: write the rest, and end the last line for eyes."""
        if self._escaper is not None:
            self._add(self._escaper.end().encode())
            self._add(b"" if self._at_start else b"\n")
        self.flush()

    def _add(self, data: bytes) -> None:
        if data:
            self.pending = memoryview(bytes(self.pending) + data if self.pending else data)
            self._at_start = data.endswith(b"\n")


@dataclass(slots=True)
class Totals:
    """What was moved, in bytes, and in messages where the socket has boundaries."""

    sent: int = 0
    received: int = 0
    messages_sent: int = 0
    messages_received: int = 0


class Pump:
    """Pumps between a connection (a stream, or sequenced packets), a source and a sink.

    `first` is sent before anything of `source`, the descriptor to read from, or None. Where the socket
    has boundaries, each piece of `first` and each line of the source is a message. `crlf` ends the
    source's lines with CR LF. Without `half_close` the peer isn't told of the end of our input.
    """

    def __init__(
        self,
        connection: Connection,
        source: int | None,
        sink: Sink,
        ending: Ending,
        first: Iterable[bytes] = (),
        *,
        crlf: bool = False,
        half_close: bool = True,
    ) -> None:
        self._steps = connection.steps
        self._source = source
        self._sink = sink
        self._ending = ending
        self._up: deque[memoryview] = deque(memoryview(piece) for piece in first)
        self._lines = Inbox(boundaries=False, datagrams=False, limit=LARGEST)
        self._line_ends = CrLf() if crlf else None
        self._half_close = half_close
        self._lost: ConnectionLost | None = None
        self.totals = Totals()

    def run(self) -> Totals:
        """Pump until both have ended, or the ending says so.

        Raises:
            ConnectionLost: the peer reset the connection, or closed it with bytes of ours unsent.
            TimeLimit: nothing moved for too long.
            BrokenPipeError: nobody reads the sink.
        """
        try:
            while self._turn():
                pass
        except PeerError:
            self._sink.end()
            raise
        self._sink.end()
        if self._lost is not None:
            raise self._lost
        return self.totals

    def _turn(self) -> bool:
        now = time.monotonic()
        ending, inbox = self._ending, self._steps.inbox
        sending = bool(self._up) or self._source is not None
        if not sending and ending.sent_all is None:
            ending.sent_all = now
        ending.peer_ended = inbox.ended and not self._up
        if inbox.ended and not sending and not self._sink.pending:
            return False
        # While our own output is blocked, nobody else is to blame for the silence.
        due = None if self._sink.pending else ending.due()
        if due is not None and due.at <= now:
            return self._act(due)
        ready = self._poll(None if due is None else due.at - now)
        if self._sink.descriptor in ready and self._sink.pending:
            self._sink.write()
            ending.moved = time.monotonic()
        if self._steps.socket.fileno() in ready:
            if not inbox.ended and not self._sink.pending:
                self._receive()
            if self._up:
                self._send()
        if self._source is not None and self._source in ready and not self._up:
            self._read(self._source)
        return True

    def _poll(self, seconds: float | None) -> set[int]:
        # A descriptor is registered only while something is wanted of it: poll() reports a hang-up
        # whether asked or not, and the loop would spin on one that it does nothing about.
        poller = select.poll()
        reads = not self._steps.inbox.ended and not self._sink.pending
        writes = bool(self._up) or (reads and self._steps.owes)
        if reads or writes:
            events = reads * select.POLLIN | writes * select.POLLOUT
            poller.register(self._steps.socket, events)
        if self._sink.pending:
            poller.register(self._sink.descriptor, select.POLLOUT)
        if self._source is not None and not self._up:
            poller.register(self._source, select.POLLIN)
        ready = poller.poll(None if seconds is None else seconds * 1000)
        return {descriptor for descriptor, _ in ready}

    def _act(self, due: Due) -> bool:
        if due.what == "finish":
            self._ending.finished = time.monotonic()
            try:
                if self._half_close and self._steps.half_closes:
                    self._steps.finish()
            except ConnectionLost as lost:
                # A peer that has closed already need not hear that we have finished.
                self._lost = None if self._steps.inbox.ended else lost
        elif due.what == "give up":
            doing = (
                "sending"
                if self._up
                else "waiting for the peer"
                if self._ending.came
                else "waiting for an answer"
            )
            raise TimeLimit(self._steps.where, doing, self._ending.silence or 0.0)
        return due.what != "leave"

    def _receive(self) -> None:
        inbox = self._steps.inbox
        if not self._steps.try_receive():
            return
        self._ending.moved = time.monotonic()  # the peer's EOF counts too
        while (data := inbox.take(CHUNK)) is not None:
            self.totals.received += len(data)
            self.totals.messages_received += 1
            self._sink.put(data)
            self._sink.write()
            ends = 0
            if self._ending.expected > 0:
                ends = 1 if self._steps.boundaries else data.count(b"\n")
            self._ending.receives(ends, time.monotonic())

    def _send(self) -> None:
        try:
            sent = self._steps.try_send(self._up[0])
        except ConnectionLost as lost:
            self._lost = lost
            self._up.clear()
            self._source = None
            return
        if sent is None:
            return
        self.totals.sent += sent
        self._ending.moved = time.monotonic()
        if sent == len(self._up[0]):
            self.totals.messages_sent += 1
            self._up.popleft()
        else:
            self._up[0] = self._up[0][sent:]

    def _read(self, source: int) -> None:
        data = read_input(source)
        if data is None:
            return
        self._ending.moved = time.monotonic()
        if not data:
            self._source = None
        if not self._steps.boundaries:
            data = data if self._line_ends is None else self._line_ends.feed(data)
            self._up.extend([memoryview(data)] if data else [])
            return
        self._lines.put(data)
        while (line := self._lines.take_line()) is not None:
            self._up.append(memoryview(line if self._line_ends is None else line + b"\r\n"))


def read_input(source: int) -> bytes | None:
    """What there is to read; b"" at the end of input; None for nothing yet. Raises SystemRefused."""
    try:
        return os.read(source, CHUNK)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal that is no longer ours to read
            return b""
        raise SystemRefused("read", "standard input", error.errno or 0) from error
