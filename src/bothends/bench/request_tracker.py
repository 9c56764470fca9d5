"""Track the pending requests of one connection, and classify faulty responses.

Sans-IO: the caller passes sent and received bytes with their times (nanoseconds).

1. While all responses are correct, each received chunk is compared with the next bytes of the workload's
   ring in one memory comparison, which covers every byte.
2. From the first byte that differs, responses are compared one by one (`_match_response`) if they are
   delimited: by datagram boundaries, or by the workload's `terminator`. Otherwise the connection cannot be
   resynchronized, and `desynced` is set.
3. A response with a number is matched by it, so that a wrong response is not mistaken for another one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate
from typing import Final, TypeAlias

import numpy as np

from bothends.bench.generators.base import RunOutcome
from bothends.bench.workload import Workload

MAX_READ: Final = 256 * 1024
"""Maximum bytes per read: the ring of responses is repeated so that one comparison covers as many."""

HISTOGRAM_BATCH: Final = 32 * 1024
"""Latencies that are collected before they are added to the histograms at once."""


Pending: TypeAlias = tuple[int, int, int, int]
"""A pending request: its number, and when it was due, sent (its uncorrected latency starts) and written.
The last two differ if a connection was opened for it. Times in nanoseconds."""


class RunCounters:
    """Counters shared by all connections of a run. Only the time from `start` to `stop` counts."""

    def __init__(self) -> None:
        self.outcome = RunOutcome()
        self.start = 0
        self.stop = 0
        self.is_open = False
        """Whether requests have a schedule: the heat map then has the corrected latencies."""
        self.response_count = 0
        """Correct responses, including those outside the measured time."""
        self._responses: list[
            tuple[int, int, int, int, int]
        ] = []  # due, sent, written, first byte, last byte
        self._lateness: list[int] = []
        self._completions: list[int] = []

    def record_response(self, request: Pending, first_byte: int, at: int, size: int) -> None:
        """Count a correct response of `size` bytes, received from `first_byte` to `at` (nanoseconds)."""
        self.response_count += 1
        _, due, sent, written = request
        if self.start <= due < self.stop:
            self._responses.append((due, sent, written, first_byte, at))
            if len(self._responses) >= HISTOGRAM_BATCH:
                self.flush()
        if self.start <= at < self.stop:
            self._completions.append(at - self.start)
            self.outcome.bytes_received += size

    def record_lateness(self, nanoseconds: int, due: int) -> None:
        """Count the delay of a send after the time it was due and its connection was free."""
        if self.start <= due < self.stop:
            self._lateness.append(nanoseconds)

    def flush(self) -> None:
        """Add the collected values to the histograms."""
        outcome = self.outcome
        if self._responses:
            due, sent, written, first, at = np.array(self._responses, np.int64).T
            outcome.uncorrected.add(at - sent)
            outcome.corrected.add(at - due)
            outcome.wait.add(written - due)
            outcome.first_byte.add(first - written)
            outcome.transfer.add(at - first)
            outcome.heat.add(due - self.start, self.stop - self.start, at - (due if self.is_open else sent))
        outcome.lateness.add(self._lateness)
        outcome.completed += len(self._completions)
        for after in self._completions:
            second = after // 1_000_000_000
            while len(outcome.each_second) <= second:
                outcome.each_second.append(0)
            outcome.each_second[second] += 1
        self._responses.clear()
        self._lateness.clear()
        self._completions.clear()


class WorkloadBuffer:
    """The concatenated bytes of a workload, shared by all connections."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.length = len(workload)
        self.cycle_size = sum(map(len, workload.responses))
        repeats = MAX_READ // self.cycle_size + 2 if self.cycle_size else 1
        self.responses = b"".join(workload.responses) * repeats
        self.response_ends = list(accumulate(len(each) for each in workload.responses * repeats))
        self.requests = workload.requests * 2

    def request_bytes(self, first: int, count: int) -> bytes:
        """Return the bytes of `count` requests, starting with the one at index `first`."""
        if count == 1:
            return self.requests[first]
        if first + count <= len(self.requests):
            return b"".join(self.requests[first : first + count])
        return b"".join(self.requests[(first + each) % self.length] for each in range(count))


class RequestTracker:
    """The pending requests of one connection.

    `desynced`: received bytes can no longer be assigned to requests; close the connection.
    """

    __slots__ = (
        "_buffer",
        "_counters",
        "_expired",
        "_first_byte",
        "_highest_answered",
        "_message_oriented",
        "_offset",
        "_partial",
        "_resyncing",
        "_sent_count",
        "desynced",
        "pending",
    )

    def __init__(self, buffer: WorkloadBuffer, counters: RunCounters, *, message_oriented: bool) -> None:
        self._buffer = buffer
        self._counters = counters
        self._message_oriented = message_oriented
        self._resyncing = False
        self._offset = 0  # offset of the next expected byte in the ring of responses
        self._sent_count = 0  # total requests
        self._highest_answered = -1  # highest number of an answered request
        self._partial = b""  # an incomplete response, while resynchronizing
        self._expired: deque[int] = deque(maxlen=buffer.length)  # timed out; their responses may still arrive
        self.pending: deque[Pending] = deque()
        """The pending requests, oldest first."""
        self._first_byte = 0  # when the first byte of the current response was received
        self.desynced = False

    @property
    def closing(self) -> bool:
        """Whether the last response closes the connection: only those of HTTP do."""
        return False

    def receive_eof(self, at: int) -> None:
        """Process EOF: it completes no response."""

    def send(self, count: int, due: int, sent: int, written: int | None = None) -> bytes:
        """Register the next `count` requests as pending. Returns their bytes. `written`: None for `sent`."""
        first = self._sent_count
        for number in range(first, first + count):
            self.pending.append((number, due, sent, sent if written is None else written))
        self._sent_count += count
        return self._buffer.request_bytes(first % self._buffer.length, count)

    def receive(self, data: bytes, at: int) -> int:
        """Process received bytes. Returns the number of requests that are no longer pending."""
        before = len(self.pending)
        if not self._is_partial():
            self._first_byte = at
        if self._message_oriented:
            self._receive_datagram(data, at)
        elif self._resyncing:
            self._receive_resyncing(data, at)
        else:
            self._compare(data, at)
        return before - len(self.pending)

    def connection_closed(self) -> None:
        """Count pending requests as lost, and an incomplete response as short."""
        faults = self._counters.outcome.faults
        if self.pending and self._is_partial():
            self.pending.popleft()
            faults.short += 1
        faults.lost += len(self.pending)
        self.pending.clear()

    def expire(self, before: int) -> int:
        """Give up requests sent before a time. Returns their number. Their responses now count as late."""
        if not self.pending or self.pending[0][2] >= before:
            return 0
        count = 0
        while self.pending and self.pending[0][2] < before:
            self._expired.append(self.pending.popleft()[0])
            count += 1
        if not self._message_oriented:
            self.desynced = not self._buffer.workload.terminator
            if not self._resyncing:
                self._start_resync(b"", 0)
        return count

    # Streams ---------------------------------------------------------------------------------------

    def _compare(self, data: bytes, at: int) -> None:
        ring, start = self._buffer, self._offset
        end = start + len(data)
        first = bisect_right(ring.response_ends, start)
        count = bisect_right(ring.response_ends, end, first) - first
        # The data may hold as many complete and partial responses as there are pending requests.
        has_partial = count == 0 or end > ring.response_ends[first + count - 1]
        if data != ring.responses[start:end] or count + has_partial > len(self.pending):
            self._start_resync(data, at)
            return
        for index in range(count):
            request = self.pending.popleft()
            size = len(ring.workload.responses[(first + index) % ring.length])
            self._counters.record_response(request, self._first_byte, at, size)
            self._highest_answered, self._first_byte = request[0], at
        self._offset = end % ring.cycle_size

    def _is_partial(self) -> bool:
        return bool(self._partial) or (not self._resyncing and self._partial_size() > 0)

    def _partial_size(self) -> int:
        """Return the number of bytes received of the current response."""
        before = bisect_right(self._buffer.response_ends, self._offset)
        return self._offset - (self._buffer.response_ends[before - 1] if before else 0)

    def _start_resync(self, data: bytes, at: int) -> None:
        size = self._partial_size()
        self._resyncing = True
        self._receive_resyncing(self._buffer.responses[self._offset - size : self._offset] + data, at)

    def _receive_resyncing(self, data: bytes, at: int) -> None:
        end = self._buffer.workload.terminator
        if not end:
            if data:
                self._receive_unterminated(data, at)
            return
        *complete, self._partial = (self._partial + data).split(end)
        for response in complete:
            self._match_response(response + end, at)
            self._first_byte = at
        longest = self._buffer.workload.uniform_size or max(map(len, self._buffer.workload.responses))
        if len(self._partial) > 2 * longest:  # the terminator is missing
            self._counters.outcome.faults.wrong += 1
            self._partial, self.desynced = b"", True

    def _receive_unterminated(self, data: bytes, at: int) -> None:
        """Count correct responses up to the first fault; later bytes cannot be assigned to a request."""
        responses, ring = self._buffer.workload.responses, self._buffer
        while self.pending:
            response = responses[self.pending[0][0] % ring.length]
            if not data.startswith(response):
                break
            request = self.pending.popleft()
            self._counters.record_response(request, self._first_byte, at, len(response))
            self._highest_answered, self._first_byte = request[0], at
            data = data[len(response) :]
        if data:
            if self.pending:
                self.pending.popleft()
            self._counters.outcome.faults.wrong += 1
        self.desynced = True

    # One response ----------------------------------------------------------------------------------

    def _receive_datagram(self, data: bytes, at: int) -> None:
        responses, length = self._buffer.workload.responses, self._buffer.length
        if (
            self.pending
            and data == responses[self.pending[0][0] % length]
            and self.pending[0][0] > self._highest_answered
        ):
            request = self.pending.popleft()
            self._counters.record_response(request, at, at, len(data))
            self._highest_answered = request[0]
        else:
            self._match_response(data, at)

    def _match_response(self, data: bytes, at: int) -> None:
        workload, faults = self._buffer.workload, self._counters.outcome.faults
        index = workload.index_by_response.get(data)
        if index is None:
            self._classify_fault(data)
            return
        number = (
            self._pending_at(index)
            if workload.is_numbered
            else (self.pending[0][0] if self.pending else None)
        )
        if number is None:
            expired = next((each for each in self._expired if each % len(workload) == index), None)
            if expired is not None:
                self._expired.remove(expired)
                faults.late += 1
            elif workload.is_numbered and self._sent_count:
                faults.duplicated += 1
            else:
                faults.wrong += 1
            return
        request = self._pop_pending(number)
        if number < self._highest_answered:
            faults.reordered += 1
        self._highest_answered = max(self._highest_answered, number)
        self._counters.record_response(request, self._first_byte, at, len(data))

    def _classify_fault(self, data: bytes) -> None:
        """Classify a response that matches no request; its number may still identify the request."""
        workload, faults = self._buffer.workload, self._counters.outcome.faults
        index = (
            workload.index_by_number.get(data[: len(next(iter(workload.index_by_number), b""))])
            if workload.index_by_number
            else None
        )
        number = self._pending_at(index) if index is not None else None
        if number is None and self.pending:
            number = self.pending[0][0]
        if number is None:
            faults.wrong += 1
            return
        self._pop_pending(number)
        expected = workload.responses[number % len(workload)]
        content = data.removesuffix(workload.terminator) if workload.terminator else data
        if len(data) < len(expected) and expected.startswith(content):
            faults.short += 1
        else:
            faults.wrong += 1

    def _pending_at(self, index: int) -> int | None:
        """Return the number of the newest pending request at this index of the ring, or None."""
        length = self._buffer.length
        return next((each[0] for each in reversed(self.pending) if each[0] % length == index), None)

    def _pop_pending(self, number: int) -> Pending:
        for each in self.pending:
            if each[0] == number:
                self.pending.remove(each)
                return each
        raise KeyError(number)
