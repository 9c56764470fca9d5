"""Track the pending HTTP requests of one connection, and check the responses: `request_tracker.py` for HTTP.

Sans-IO: the caller passes sent and received bytes with their times (nanoseconds). Responses come in the order
of the requests (RFC 9112, section 9.3.2).
"""

from __future__ import annotations

from collections import deque

from bothends.bench.http_response import HttpResponseReader, MalformedResponse
from bothends.bench.http_target import HttpExchange
from bothends.bench.request_tracker import Pending, RunCounters


class HttpTracker:
    """The pending requests of one connection.

    `desynced`: the next response cannot be found; close the connection. `closing`: the last response closes
    the connection; open another one.
    """

    __slots__ = (
        "_body_size",
        "_counters",
        "_exchange",
        "_first_byte",
        "_mismatch",
        "_reader",
        "_request",
        "_sent_count",
        "closing",
        "desynced",
        "pending",
    )

    def __init__(self, exchange: HttpExchange, request: bytes, counters: RunCounters) -> None:
        self._exchange = exchange
        self._request = request
        self._counters = counters
        self._reader = HttpResponseReader(no_body=exchange.has_no_body, on_body=self._on_body)
        self._sent_count = 0
        self._body_size = 0
        self._mismatch = False
        self.pending: deque[Pending] = deque()
        """The pending requests, oldest first."""
        self._first_byte = 0  # when the first byte of the current response was received
        self.desynced = False
        self.closing = False

    def send(self, count: int, due: int, sent: int, written: int | None = None) -> bytes:
        """Register the next `count` requests as pending. Returns their bytes. `written`: None for `sent`."""
        for number in range(self._sent_count, self._sent_count + count):
            self.pending.append((number, due, sent, sent if written is None else written))
        self._sent_count += count
        return self._request * count

    def receive(self, data: bytes, at: int) -> int:
        """Process received bytes. Returns the number of requests that are no longer pending."""
        before = len(self.pending)
        while not (self.closing or self.desynced):
            if not self.pending:
                if data or self._reader.is_partial:  # unsolicited
                    self._counters.outcome.faults.wrong += 1
                    self.desynced = True
                break
            if not self._reader.is_partial:
                self._first_byte = at
            try:
                if not self._reader.feed(data):
                    break
            except MalformedResponse as malformed:
                self._on_malformed(malformed.reason)
                break
            data = b""
            self._finish_response(at, keep_alive=self._reader.head.keep_alive)
        return before - len(self.pending)

    def receive_eof(self, at: int) -> None:
        """Process EOF, which ends a body without a length."""
        if self.pending and self._reader.end():
            self._finish_response(at, keep_alive=False)

    def connection_closed(self) -> None:
        """Count pending requests as lost, and an incomplete response as short."""
        faults = self._counters.outcome.faults
        if self.pending and self._reader.is_partial and not self.desynced:
            self.pending.popleft()
            faults.short += 1
        faults.lost += len(self.pending)
        self.pending.clear()

    def expire(self, before: int) -> int:
        """Give up requests sent before a time. Returns their number; the connection is then desynced."""
        count = 0
        while self.pending and self.pending[0][2] < before:
            self.pending.popleft()
            count += 1
        self.desynced = self.desynced or count > 0
        return count

    def _on_body(self, piece: bytes) -> None:
        expected, start = self._exchange.body, self._body_size
        self._body_size += len(piece)
        if expected is not None and expected[start : self._body_size] != piece:
            self._mismatch = True

    def _finish_response(self, at: int, *, keep_alive: bool) -> None:
        outcome, length = self._counters.outcome, self._exchange.length
        request = self.pending.popleft()
        status = self._reader.head.status
        outcome.statuses[status] = outcome.statuses.get(status, 0) + 1
        if status not in self._exchange.statuses:
            outcome.faults.wrong_status += 1
        elif self._mismatch or (length is not None and self._body_size > length):
            outcome.faults.wrong += 1
        elif length is not None and self._body_size < length:
            outcome.faults.short += 1
        else:
            self._counters.record_response(request, self._first_byte, at, self._body_size)
        self._body_size, self._mismatch = 0, False
        if not keep_alive:
            outcome.closes += 1
            self.closing = True

    def _on_malformed(self, reason: str) -> None:
        outcome = self._counters.outcome
        outcome.malformed[reason] = outcome.malformed.get(reason, 0) + 1
        outcome.faults.malformed += 1
        self.pending.popleft()
        self.desynced = True
