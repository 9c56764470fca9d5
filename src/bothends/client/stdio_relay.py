"""Moving bytes between standard input, a connection and standard output, both ways at once.

1. Nothing is read before what was read last is gone: 64 KiB in each direction is all that is kept,
   and whoever is slow slows down the other end, not this one's memory.
2. One poll() watches all three. The socket is non-blocking. Standard input and output are not made so,
   for their description is shared with the shell and with whoever is at the other end of the pipe:
   they are read and written only when poll() says so, and written at most PIPE_BUF bytes at a time,
   which a pipe that is called writable takes without blocking (pipe(7)).
3. A reset may stand behind an answer that has arrived: when sending fails, reading goes on to its end,
   and only then is the failure told.
4. When to finish, to leave and to give up is decided by an `ExitPolicy`, which is pure.
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
from bothends.client.receive_buffer import MAX_MESSAGE, READ_SIZE, ReceiveBuffer
from bothends.errors import ConnectionLost, PeerError, SystemCallFailed, TimeoutExpired
from bothends.escaping import Escaper

# After the peer's EOF, how long an open but idle standard input may still bring something. A peer that
# has only half-closed still reads, so a file that is being sent is sent to its end; but a peer that is
# gone must not keep us waiting for someone to type.
EOF_GRACE_PERIOD: Final = 0.5

# One request: how long to wait before we finish. Many servers answer only at our EOF, some never close
# their side, and some stop answering at our EOF: so we finish when the answer seems complete, or when
# nothing comes although nothing is underway.
REPLY_IDLE: Final = 0.2
NO_REPLY_DELAY: Final = 1.0

PIPE_BUF: Final = select.PIPE_BUF


class Deadline(NamedTuple):
    """What is to be done, and when (on the clock that was passed in)."""

    at: float
    action: Literal["finish", "leave", "give up"]


@dataclass(slots=True)
class ExitPolicy:
    """When a pipe's exchange ends. Times are seconds; None means never.

    `quit_after`: once we have finished, how long nothing may come before we leave. `silence`: how long
    nothing may move at all. `now` is when it began.
    """

    quit_after: float | None
    idle_timeout: float | None
    started: float

    last_activity: float = 0.0
    last_received: float | None = None
    all_sent: float | None = None
    half_closed: float | None = None
    peer_eof: bool = False
    expected_messages: int = 0  # ends of messages that still matter

    def __post_init__(self) -> None:
        self.last_activity = self.started

    def on_received(self, messages: int, now: float) -> None:
        """Something came, with so many ends of lines or messages."""
        self.last_received = self.last_activity = now

    def next_deadline(self) -> Deadline | None:
        """What is next, unless something moves before."""
        return min(self._deadlines(), key=lambda due: due.at, default=None)

    def _deadlines(self) -> Iterable[Deadline]:
        if self.all_sent is not None and self.half_closed is None:
            yield Deadline(self._half_close_time(self.all_sent), "finish")
        if self.half_closed is not None and self.quit_after is not None and self._may_exit():
            yield Deadline(max(self.half_closed, self.last_received or 0.0) + self.quit_after, "leave")
        if self.peer_eof:
            yield Deadline(self.last_activity + EOF_GRACE_PERIOD, "leave")
        if self.idle_timeout is not None:
            yield Deadline(self.last_activity + self.idle_timeout, "give up")

    def _half_close_time(self, all_sent: float) -> float:
        return all_sent

    def _may_exit(self) -> bool:
        return True


@dataclass(slots=True)
class RequestExitPolicy(ExitPolicy):
    """When one request ends: as many messages as `expected` make an answer complete."""

    expected_messages: int = 1

    def on_received(self, messages: int, now: float) -> None:
        """See Ending.receives."""
        self.last_received = self.last_activity = now
        self.expected_messages -= messages

    def _half_close_time(self, all_sent: float) -> float:
        if self.expected_messages <= 0:
            return all_sent
        return (
            all_sent + NO_REPLY_DELAY
            if self.last_received is None
            else max(self.last_received, all_sent) + REPLY_IDLE
        )

    def _may_exit(self) -> bool:
        return self.last_received is not None  # no answer at all is not left but given up


class CrlfEncoder:
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


class OutputSink:
    """Where the peer's bytes go: a descriptor, with what it has not taken yet.

    With an `escaper` they are for eyes: escaped, and the last line ends. Without one they pass as they
    are; `separate` then keeps messages apart, a newline after each that has none.
    """

    def __init__(
        self, descriptor: int, escaper: Escaper | None = None, *, terminate_messages: bool = False
    ) -> None:
        self.descriptor = descriptor
        self.pending = memoryview(b"")
        self._escaper = escaper
        self._terminate_messages = terminate_messages
        self._at_line_start = True
        mode = os.fstat(descriptor).st_mode
        waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
        self._max_write = PIPE_BUF if waits else READ_SIZE  # a file takes any amount at once
        self._poller = select.poll()
        self._poller.register(descriptor, select.POLLOUT)

    def feed(self, data: bytes) -> None:
        """Take one read's bytes, or one message."""
        if self._terminate_messages and not data.endswith(b"\n"):
            data += b"\n"
        if self._escaper is not None:
            data = self._escaper.feed(data).encode()
        self._add(data)

    def write_available(self) -> None:
        """Write what the descriptor takes at once.

        Raises:
            BrokenPipeError: nobody reads it any more.
        """
        while self.pending and self._poller.poll(0):
            try:
                written = os.write(self.descriptor, self.pending[: self._max_write])
            except BlockingIOError:  # non-blocking by somebody else's will
                return
            self.pending = self.pending[written:]

    def flush(self) -> None:
        """Write everything, however long that takes."""
        while self.pending:
            self._poller.poll()
            self.write_available()

    def finish(self) -> None:
        """Nothing more comes: write the rest, and end the last line for eyes."""
        if self._escaper is not None:
            self._add(self._escaper.end().encode())
            self._add(b"" if self._at_line_start else b"\n")
        self.flush()

    def _add(self, data: bytes) -> None:
        if data:
            self.pending = memoryview(bytes(self.pending) + data if self.pending else data)
            self._at_line_start = data.endswith(b"\n")


@dataclass(slots=True)
class TransferTotals:
    """What was moved, in bytes, and in messages where the socket has boundaries."""

    sent: int = 0
    received: int = 0
    messages_sent: int = 0
    messages_received: int = 0


class ClientRelay:
    """Pumps between a connection (a stream, or sequenced packets), a source and a sink.

    `first` is sent before anything of `source`, the descriptor to read from, or None. Where the socket
    has boundaries, each piece of `first` and each line of the source is a message. `crlf` ends the
    source's lines with CR LF. Without `half_close` the peer isn't told of the end of our input.
    """

    def __init__(
        self,
        connection: Connection,
        source: int | None,
        sink: OutputSink,
        exit_policy: ExitPolicy,
        first: Iterable[bytes] = (),
        *,
        crlf: bool = False,
        half_close: bool = True,
    ) -> None:
        self._core = connection.core
        self._source = source
        self._sink = sink
        self._exit_policy = exit_policy
        self._send_queue: deque[memoryview] = deque(memoryview(piece) for piece in first)
        self._line_buffer = ReceiveBuffer(message_oriented=False, datagrams=False, limit=MAX_MESSAGE)
        self._crlf_encoder = CrlfEncoder() if crlf else None
        self._half_close = half_close
        self._send_error: ConnectionLost | None = None
        self.totals = TransferTotals()

    def run(self) -> TransferTotals:
        """Pump until both have ended, or the ending says so.

        Raises:
            ConnectionLost: the peer reset the connection, or closed it with bytes of ours unsent.
            TimeLimit: nothing moved for too long.
            BrokenPipeError: nobody reads the sink.
        """
        try:
            while self._run_once():
                pass
        except PeerError:
            self._sink.finish()
            raise
        self._sink.finish()
        if self._send_error is not None:
            raise self._send_error
        return self.totals

    def _run_once(self) -> bool:
        now = time.monotonic()
        ending, inbox = self._exit_policy, self._core.receive_buffer
        sending = bool(self._send_queue) or self._source is not None
        if not sending and ending.all_sent is None:
            ending.all_sent = now
        ending.peer_eof = inbox.eof_received and not self._send_queue
        if inbox.eof_received and not sending and not self._sink.pending:
            return False
        # While our own output is blocked, nobody else is to blame for the silence.
        due = None if self._sink.pending else ending.next_deadline()
        if due is not None and due.at <= now:
            return self._apply_deadline(due)
        ready = self._poll(None if due is None else due.at - now)
        if self._sink.descriptor in ready and self._sink.pending:
            self._sink.write_available()
            ending.last_activity = time.monotonic()
        if self._core.socket.fileno() in ready:
            if not inbox.eof_received and not self._sink.pending:
                self._receive()
            if self._send_queue:
                self._send()
        if self._source is not None and self._source in ready and not self._send_queue:
            self._read(self._source)
        return True

    def _poll(self, timeout: float | None) -> set[int]:
        # A descriptor is registered only while something is wanted of it: poll() reports a hang-up
        # whether asked or not, and the loop would spin on one that it does nothing about.
        poller = select.poll()
        reads = not self._core.receive_buffer.eof_received and not self._sink.pending
        writes = bool(self._send_queue) or (reads and self._core.has_unsent)
        if reads or writes:
            events = reads * select.POLLIN | writes * select.POLLOUT
            poller.register(self._core.socket, events)
        if self._sink.pending:
            poller.register(self._sink.descriptor, select.POLLOUT)
        if self._source is not None and not self._send_queue:
            poller.register(self._source, select.POLLIN)
        ready = poller.poll(None if timeout is None else timeout * 1000)
        return {descriptor for descriptor, _ in ready}

    def _apply_deadline(self, deadline: Deadline) -> bool:
        if deadline.action == "finish":
            self._exit_policy.half_closed = time.monotonic()
            try:
                if self._half_close and self._core.supports_half_close:
                    self._core.half_close()
            except ConnectionLost as lost:
                # A peer that has closed already need not hear that we have finished.
                self._send_error = None if self._core.receive_buffer.eof_received else lost
        elif deadline.action == "give up":
            doing = (
                "sending"
                if self._send_queue
                else "waiting for the peer"
                if self._exit_policy.last_received
                else "waiting for an answer"
            )
            raise TimeoutExpired(self._core.label, doing, self._exit_policy.idle_timeout or 0.0)
        return deadline.action != "leave"

    def _receive(self) -> None:
        inbox = self._core.receive_buffer
        if not self._core.try_receive():
            return
        self._exit_policy.last_activity = time.monotonic()  # the peer's EOF counts too
        while (data := inbox.take(READ_SIZE)) is not None:
            self.totals.received += len(data)
            self.totals.messages_received += 1
            self._sink.feed(data)
            self._sink.write_available()
            ends = 0
            if self._exit_policy.expected_messages > 0:
                ends = 1 if self._core.message_oriented else data.count(b"\n")
            self._exit_policy.on_received(ends, time.monotonic())

    def _send(self) -> None:
        try:
            sent = self._core.try_send(self._send_queue[0])
        except ConnectionLost as lost:
            self._send_error = lost
            self._send_queue.clear()
            self._source = None
            return
        if sent is None:
            return
        self.totals.sent += sent
        self._exit_policy.last_activity = time.monotonic()
        if sent == len(self._send_queue[0]):
            self.totals.messages_sent += 1
            self._send_queue.popleft()
        else:
            self._send_queue[0] = self._send_queue[0][sent:]

    def _read(self, source: int) -> None:
        data = read_input(source)
        if data is None:
            return
        self._exit_policy.last_activity = time.monotonic()
        if not data:
            self._source = None
        if not self._core.message_oriented:
            data = data if self._crlf_encoder is None else self._crlf_encoder.feed(data)
            self._send_queue.extend([memoryview(data)] if data else [])
            return
        self._line_buffer.feed(data)
        while (line := self._line_buffer.take_line()) is not None:
            self._send_queue.append(memoryview(line if self._crlf_encoder is None else line + b"\r\n"))


def read_input(source: int) -> bytes | None:
    """What there is to read; b"" at the end of input; None for nothing yet. Raises SystemRefused."""
    try:
        return os.read(source, READ_SIZE)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal that is no longer ours to read
            return b""
        raise SystemCallFailed("read", "standard input", error.errno or 0) from error
