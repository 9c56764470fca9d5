"""Relay bytes between standard input, a connection and standard output, in both directions at once.

1. Nothing is read until the previous read has been written out. At most 64 KiB are buffered in each
   direction, so a slow end slows the other end down and memory stays bounded.
2. One poll() watches all three. The socket is non-blocking. Standard input and output stay blocking, because
   their open file description is shared with the shell and with the other end of the pipe. They are read and
   written only when poll() reports them ready, and written at most PIPE_BUF bytes at a time, which a writable
   pipe accepts without blocking (pipe(7)).
3. A reply may have arrived before a reset. When sending fails, reading continues to its end; then the error
   is raised.
4. `ExitPolicy`, which is pure, decides when to half-close, when to exit and when to time out.
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

# Seconds to wait for more input after the peer's EOF. A peer that has only half-closed still reads, so a file
# is sent to its end; but after a full close the client must not wait for interactive input.
EOF_GRACE_PERIOD: Final = 0.5

# One request: seconds to wait before the half-close. Many servers reply only after our EOF, some never close
# their side, and some stop replying after our EOF. So the client half-closes when the reply seems complete
# (REPLY_IDLE after its last byte), or when no reply starts (NO_REPLY_DELAY).
REPLY_IDLE: Final = 0.2
NO_REPLY_DELAY: Final = 1.0

PIPE_BUF: Final = select.PIPE_BUF


class Deadline(NamedTuple):
    """An action and its time, on the clock that was passed in."""

    at: float
    action: Literal["half-close", "exit", "time out"]


@dataclass(slots=True)
class ExitPolicy:
    """When a relay ends. Times are in seconds; None means never.

    `quit_after`: after the half-close, exit when nothing arrives for this long. `idle_timeout`: time out when
    nothing moves for this long. `started`: the start time.
    """

    quit_after: float | None
    idle_timeout: float | None
    started: float

    last_activity: float = 0.0
    last_received: float | None = None
    all_sent: float | None = None
    half_closed: float | None = None
    peer_eof: bool = False
    expected_messages: int = 0  # replies still expected

    def __post_init__(self) -> None:
        self.last_activity = self.started

    def on_received(self, messages: int, now: float) -> None:
        """Record received data with this number of line ends or messages."""
        self.last_received = self.last_activity = now

    def next_deadline(self) -> Deadline | None:
        """Return the next action, unless data moves before; None if there is none."""
        return min(self._deadlines(), key=lambda deadline: deadline.at, default=None)

    def _deadlines(self) -> Iterable[Deadline]:
        if self.all_sent is not None and self.half_closed is None:
            yield Deadline(self._half_close_time(self.all_sent), "half-close")
        if self.half_closed is not None and self.quit_after is not None and self._may_exit():
            yield Deadline(max(self.half_closed, self.last_received or 0.0) + self.quit_after, "exit")
        if self.peer_eof:
            yield Deadline(self.last_activity + EOF_GRACE_PERIOD, "exit")
        if self.idle_timeout is not None:
            yield Deadline(self.last_activity + self.idle_timeout, "time out")

    def _half_close_time(self, all_sent: float) -> float:
        return all_sent

    def _may_exit(self) -> bool:
        return True


@dataclass(slots=True)
class RequestExitPolicy(ExitPolicy):
    """The exit policy of a request: `expected_messages` messages are a complete reply."""

    expected_messages: int = 1

    def on_received(self, messages: int, now: float) -> None:
        """See ExitPolicy.on_received."""
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
        return self.last_received is not None  # without any reply the relay times out instead


class CrlfEncoder:
    """Convert line ends to CR LF. Existing CR LF stay unchanged, even if split between chunks."""

    def __init__(self) -> None:
        self._after_cr = False

    def feed(self, data: bytes) -> bytes:
        """Return the converted chunk."""
        if not data:
            return data
        completes_crlf = data[:1] == b"\n" and self._after_cr
        self._after_cr = data.endswith(b"\r")
        start = b"\n" if completes_crlf else b""
        return start + re.sub(rb"(?<!\r)\n", b"\r\n", data[len(start) :])


class OutputSink:
    """The output of received data: a descriptor, and the data it has not accepted yet.

    With an `escaper` the output is for a terminal: escaped, and the last line is terminated. Without one it
    is unchanged, except that `terminate_messages` adds a newline to each message without one.
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
        can_block = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
        self._max_write = PIPE_BUF if can_block else READ_SIZE  # a file accepts any amount at once
        self._poller = select.poll()
        self._poller.register(descriptor, select.POLLOUT)

    def feed(self, data: bytes) -> None:
        """Add the bytes of one read, or one message."""
        if self._terminate_messages and not data.endswith(b"\n"):
            data += b"\n"
        if self._escaper is not None:
            data = self._escaper.feed(data).encode()
        self._add(data)

    def write_available(self) -> None:
        """Write as much as the descriptor accepts without blocking.

        Raises:
            BrokenPipeError: the reader has closed the pipe.
        """
        while self.pending and self._poller.poll(0):
            try:
                written = os.write(self.descriptor, self.pending[: self._max_write])
            except BlockingIOError:  # another process made the shared file non-blocking
                return
            self.pending = self.pending[written:]

    def flush(self) -> None:
        """Write everything, blocking if necessary."""
        while self.pending:
            self._poller.poll()
            self.write_available()

    def finish(self) -> None:
        """Write the rest; with an escaper, terminate the last line."""
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
    """Totals in bytes, and in messages on message-oriented sockets."""

    sent: int = 0
    received: int = 0
    messages_sent: int = 0
    messages_received: int = 0


class ClientRelay:
    """Relay between a connection (a stream, or sequenced packets), a source and a sink.

    `source` is the descriptor to read from, or None; `first` is sent before its data. On a message-oriented
    socket each element of `first` and each line of the source is a message. `crlf` converts the source's line
    ends to CR LF. Without `half_close` the peer gets no EOF at the end of the input.
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
        self._send_queue: deque[memoryview] = deque(memoryview(chunk) for chunk in first)
        self._line_buffer = ReceiveBuffer(message_oriented=False, datagrams=False, limit=MAX_MESSAGE)
        self._crlf_encoder = CrlfEncoder() if crlf else None
        self._half_close = half_close
        self._send_error: ConnectionLost | None = None
        self.totals = TransferTotals()

    def run(self) -> TransferTotals:
        """Relay until both directions have ended, or the exit policy ends it.

        Raises:
            ConnectionLost: the peer reset the connection, or closed it while data was unsent.
            TimeoutExpired: no data moved for too long.
            BrokenPipeError: the reader of the sink has closed the pipe.
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
        policy, received = self._exit_policy, self._core.receive_buffer
        sending = bool(self._send_queue) or self._source is not None
        if not sending and policy.all_sent is None:
            policy.all_sent = now
        policy.peer_eof = received.eof_received and not self._send_queue
        if received.eof_received and not sending and not self._sink.pending:
            return False
        # While the output is blocked, the peer is not responsible for the lack of progress.
        deadline = None if self._sink.pending else policy.next_deadline()
        if deadline is not None and deadline.at <= now:
            return self._apply_deadline(deadline)
        ready = self._poll(None if deadline is None else deadline.at - now)
        if self._sink.descriptor in ready and self._sink.pending:
            self._sink.write_available()
            policy.last_activity = time.monotonic()
        if self._core.socket.fileno() in ready:
            if not received.eof_received and not self._sink.pending:
                self._receive()
            if self._send_queue:
                self._send()
        if self._source is not None and self._source in ready and not self._send_queue:
            self._read(self._source)
        return True

    def _poll(self, timeout: float | None) -> set[int]:
        # A descriptor is registered only while the relay needs it, because poll() always reports POLLHUP, and
        # the loop would spin on a descriptor that it does not handle.
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
        if deadline.action == "half-close":
            self._exit_policy.half_closed = time.monotonic()
            try:
                if self._half_close and self._core.supports_half_close:
                    self._core.half_close()
            except ConnectionLost as error:
                # Not an error if the peer has closed already: it needs no EOF.
                self._send_error = None if self._core.receive_buffer.eof_received else error
        elif deadline.action == "time out":
            operation = (
                "sending"
                if self._send_queue
                else "waiting for the peer"
                if self._exit_policy.last_received
                else "waiting for a reply"
            )
            raise TimeoutExpired(self._core.label, operation, self._exit_policy.idle_timeout or 0.0)
        return deadline.action != "exit"

    def _receive(self) -> None:
        received = self._core.receive_buffer
        if not self._core.try_receive():
            return
        self._exit_policy.last_activity = time.monotonic()  # the peer's EOF counts too
        while (data := received.take(READ_SIZE)) is not None:
            self.totals.received += len(data)
            self.totals.messages_received += 1
            self._sink.feed(data)
            self._sink.write_available()
            messages = 0
            if self._exit_policy.expected_messages > 0:
                messages = 1 if self._core.message_oriented else data.count(b"\n")
            self._exit_policy.on_received(messages, time.monotonic())

    def _send(self) -> None:
        try:
            sent = self._core.try_send(self._send_queue[0])
        except ConnectionLost as error:
            self._send_error = error
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
    """Read from standard input: b"" at EOF, None if there is no data yet. Raises SystemCallFailed."""
    try:
        return os.read(source, READ_SIZE)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # the terminal has hung up, or this is a background process
            return b""
        raise SystemCallFailed("read", "standard input", error.errno or 0) from error
