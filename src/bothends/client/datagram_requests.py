"""Requests over datagrams: send each line as a datagram, print each reply, and repeat lost requests.

A datagram may be lost, duplicated or delayed, and only a reply shows that it arrived. So each request waits
for its reply and is repeated (`receive_buffer.retry_timeouts`); anything else that arrives, at any time, is
printed too. The socket is connected, so the kernel drops datagrams of other senders, and reports
ECONNREFUSED if the other host replies that the port is not bound (udp(7)).
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from bothends.client.blocking import Connection
from bothends.client.receive_buffer import MAX_MESSAGE, NO_REPLY_HINT, ReceiveBuffer, retry_timeouts
from bothends.client.stdio_relay import OutputSink, TransferTotals, read_input
from bothends.errors import TimeoutExpired


class RetryTimer:
    """The retransmission schedule of one request. Pure."""

    def __init__(self, message: bytes, timeout: float, retries: int) -> None:
        self.message = message
        self._timeout = timeout
        self._retries = retries
        self._timeouts: Iterator[float | None] = retry_timeouts(timeout, retries)
        self._current_timeout: float | None = None
        self._attempts = 0

    def next_timeout(self) -> float | None:
        """Return the seconds to wait after sending now; None if all retries are used up."""
        self._current_timeout = next(self._timeouts, None)
        self._attempts += 1
        return self._current_timeout

    def describe(self) -> str:
        """Describe the timeout that has just passed, and whether the request is repeated."""
        if self._attempts > self._retries:
            return f"no reply after {self._timeout:.2g} s"
        seconds = f"{self._current_timeout or 0:.2g} s"
        return f"no reply after {seconds}, retrying ({self._attempts} of {self._retries})"


class DatagramRequests:
    """Send the lines of a descriptor (or the messages in `first`) one after another, each after a reply.

    `line_end` replaces the line ending of each line. `timeout`: seconds to wait for each reply, retries
    included. `quit_after`: seconds to wait for late and duplicate replies after the last request. `notify` is
    called with a message for each retry.
    """

    def __init__(
        self,
        connection: Connection,
        source: int | None,
        sink: OutputSink,
        *,
        first: Iterable[bytes] = (),
        line_end: bytes = b"",
        timeout: float = 2.0,
        retries: int = 2,
        quit_after: float = 0.0,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._connection = connection
        self._core = connection.core
        self._source = source
        self._sink = sink
        self._queue: deque[bytes] = deque(first)
        self._line_end = line_end
        self._timeout = timeout
        self._retries = retries
        self._quit_after = quit_after
        self._notify = notify
        self._line_buffer = ReceiveBuffer(message_oriented=False, datagrams=False, limit=MAX_MESSAGE)
        self._pending: RetryTimer | None = None
        self._deadline: float | None = None
        self._requests = 0
        self._unanswered = 0
        self.totals = TransferTotals()

    def run(self) -> TransferTotals:
        """Send all requests.

        Raises:
            TimeoutExpired: at least one request has no reply; the others were sent all the same.
            SystemCallFailed: the port is not bound (ECONNREFUSED), or a message is too large.
        """
        try:
            while self._run_once():
                pass
        finally:
            self._sink.finish()
        if self._unanswered:
            operation = "waiting for a reply"
            if self._requests > 1:
                operation += f" to {self._unanswered} of {self._requests} datagrams"
            raise TimeoutExpired(self._core.label, operation, self._timeout, NO_REPLY_HINT)
        return self.totals

    def _run_once(self) -> bool:
        if self._pending is None and self._queue:
            self._pending = RetryTimer(self._queue.popleft(), self._timeout, self._retries)
            self._requests += 1
            self._send(self._pending, self._pending.next_timeout() or 0.0)
        idle = self._pending is None and not self._queue
        if idle and self._source is None and self._deadline is None:
            self._deadline = time.monotonic() + self._quit_after
        seconds = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        poller = select.poll()
        poller.register(self._core.socket, select.POLLIN)
        if idle and self._source is not None:
            poller.register(self._source, select.POLLIN)
        ready = {each for each, _ in poller.poll(None if seconds is None else seconds * 1000)}
        if self._core.socket.fileno() in ready:
            self._receive()
        elif self._source is not None and self._source in ready:
            self._read(self._source)
        elif self._deadline is not None and time.monotonic() >= self._deadline:
            return self._on_timeout()
        return True

    def _send(self, request: RetryTimer, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._connection.send(request.message)
        self.totals.sent += len(request.message)
        self.totals.messages_sent += 1

    def _receive(self) -> None:
        if not self._core.try_receive("waiting for a reply"):
            return
        data = self._core.receive_buffer.take(MAX_MESSAGE) or b""
        self.totals.received += len(data)
        self.totals.messages_received += 1
        self._sink.feed(data)
        self._sink.flush()
        self._pending = self._deadline = None

    def _on_timeout(self) -> bool:
        self._deadline = None
        if self._pending is None:
            return False
        message = self._pending.describe()
        if (timeout := self._pending.next_timeout()) is not None:
            self._notify(message)
            self._send(self._pending, timeout)
            return True
        self._pending = None
        self._unanswered += 1
        if self._queue or self._source is not None:
            self._notify(message)
        return True

    def _read(self, source: int) -> None:
        data = read_input(source)
        if data is None:
            return
        self._line_buffer.feed(data)
        if not data:
            self._source = None
        while (line := self._line_buffer.take_line()) is not None:
            self._queue.append(line + self._line_end)
