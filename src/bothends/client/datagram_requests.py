"""Asking by datagram: each line a datagram, each answer shown, and repeats where none comes.

A datagram may be lost, come twice, or come late, and nothing but the answer says that it arrived. So
each question waits for an answer and is repeated (`exchange.waits`); whatever else comes, at any time,
is shown too. The socket is connected, so the kernel drops what comes from elsewhere, and reports with
ECONNREFUSED when the other host says that nobody has the port open (udp(7)).
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from bothends.client.blocking import Connection
from bothends.client.receive_buffer import LARGEST, NO_ANSWER, Inbox, waits
from bothends.client.stdio_relay import Sink, Totals, read_input
from bothends.errors import TimeLimit


class Asking:
    """One question until its answer: when to send it again, and when to give it up. Pure."""

    def __init__(self, message: bytes, seconds: float, retries: int) -> None:
        self.message = message
        self._seconds = seconds
        self._retries = retries
        self._waits: Iterator[float | None] = waits(seconds, retries)
        self._wait: float | None = None
        self._sends = 0

    def next_wait(self) -> float | None:
        """Send it now and wait so many seconds; None: it has been sent often enough, give it up."""
        self._wait = next(self._waits, None)
        self._sends += 1
        return self._wait

    def word(self) -> str:
        """What has just happened, in words: nothing came, and so it is sent again, or not any more."""
        if self._sends > self._retries:
            return f"no answer after {self._seconds:.2g} s"
        return f"no answer after {self._wait or 0:.2g} s, sending again ({self._sends} of {self._retries})"


class Questions:
    """Asks the lines of a descriptor (or the messages in `first`) one after the other.

    A line goes without its end, or with `line_end` instead.
    `within` is how long to wait for each answer, repeats included; `quit_after` how long to stay for late
    and second answers once all have been asked; `tell` hears of repeats, in words.
    """

    def __init__(
        self,
        connection: Connection,
        source: int | None,
        sink: Sink,
        *,
        first: Iterable[bytes] = (),
        line_end: bytes = b"",
        within: float = 2.0,
        retries: int = 2,
        quit_after: float = 0.0,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._connection = connection
        self._steps = connection.steps
        self._source = source
        self._sink = sink
        self._questions: deque[bytes] = deque(first)
        self._line_end = line_end
        self._within = within
        self._retries = retries
        self._quit_after = quit_after
        self._tell = tell
        self._lines = Inbox(boundaries=False, datagrams=False, limit=LARGEST)
        self._asking: Asking | None = None
        self._deadline: float | None = None
        self._asked = 0
        self._unanswered = 0
        self.totals = Totals()

    def run(self) -> Totals:
        """Ask all of them.

        Raises:
            TimeLimit: at least one stayed without an answer; the others were asked all the same.
            SystemRefused: the system reports that nobody listens, or that a message is too large.
        """
        try:
            while self._turn():
                pass
        finally:
            self._sink.end()
        if self._unanswered:
            doing = "waiting for an answer"
            if self._asked > 1:
                doing += f" to {self._unanswered} of {self._asked} datagrams"
            raise TimeLimit(self._steps.where, doing, self._within, NO_ANSWER)
        return self.totals

    def _turn(self) -> bool:
        if self._asking is None and self._questions:
            self._asking = Asking(self._questions.popleft(), self._within, self._retries)
            self._asked += 1
            self._send(self._asking, self._asking.next_wait() or 0.0)
        idle = self._asking is None and not self._questions
        if idle and self._source is None and self._deadline is None:
            self._deadline = time.monotonic() + self._quit_after
        seconds = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        poller = select.poll()
        poller.register(self._steps.socket, select.POLLIN)
        if idle and self._source is not None:
            poller.register(self._source, select.POLLIN)
        ready = {each for each, _ in poller.poll(None if seconds is None else seconds * 1000)}
        if self._steps.socket.fileno() in ready:
            self._receive()
        elif self._source is not None and self._source in ready:
            self._read(self._source)
        elif self._deadline is not None and time.monotonic() >= self._deadline:
            return self._too_late()
        return True

    def _send(self, asking: Asking, wait: float) -> None:
        self._deadline = time.monotonic() + wait
        self._connection.send(asking.message)
        self.totals.sent += len(asking.message)
        self.totals.messages_sent += 1

    def _receive(self) -> None:
        if not self._steps.try_receive("waiting for an answer"):
            return
        data = self._steps.inbox.take(LARGEST) or b""
        self.totals.received += len(data)
        self.totals.messages_received += 1
        self._sink.put(data)
        self._sink.flush()
        self._asking = self._deadline = None

    def _too_late(self) -> bool:
        self._deadline = None
        if self._asking is None:
            return False
        word = self._asking.word()
        if (wait := self._asking.next_wait()) is not None:
            self._tell(word)
            self._send(self._asking, wait)
            return True
        self._asking = None
        self._unanswered += 1
        if self._questions or self._source is not None:
            self._tell(word)
        return True

    def _read(self, source: int) -> None:
        data = read_input(source)
        if data is None:
            return
        self._lines.put(data)
        if not data:
            self._source = None
        while (line := self._lines.take_line()) is not None:
            self._questions.append(line + self._line_end)
