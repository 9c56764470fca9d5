"""One connection's requests that are open, and what was wrong with each answer.

Sans-IO: it is told what was sent and what came, and when (nanoseconds).

1. As long as all is well, a chunk is compared with the next bytes of the ring at once, whole: that is a
   comparison of memory, and it looks at every byte.
2. From the first byte that differs, answers are looked at one by one (`_answer`), where something marks
   their ends: a datagram's bounds, or the workload's `end`. Without, the stream is of no more use.
3. An answer is told by its number where there is one, so one that is wrong is not taken for another's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate
from typing import Final

from bothends.bench.generators.base import RunOutcome
from bothends.bench.workload import Workload

MAX_READ: Final = 256 * 1024
"""Most bytes of one read: the ring of answers is repeated until one comparison can take so many."""

HISTOGRAM_BATCH: Final = 32 * 1024
"""Latencies that are kept as they are before they are counted, all at once."""


class RunCounters:
    """What all connections of a run add to. The window from `start` to `stop` is what counts."""

    def __init__(self) -> None:
        self.outcome = RunOutcome()
        self.start = 0
        self.stop = 0
        self.response_count = 0
        """Intact answers, whenever they came."""
        self._uncorrected: list[int] = []
        self._corrected: list[int] = []
        self._lateness: list[int] = []
        self._completions: list[int] = []

    def record_response(self, due: int, sent: int, at: int, size: int) -> None:
        """An intact answer of `size` bytes to a request that was due and sent then."""
        self.response_count += 1
        if self.start <= due < self.stop:
            self._uncorrected.append(at - sent)
            self._corrected.append(at - due)
            if len(self._uncorrected) >= HISTOGRAM_BATCH:
                self.flush()
        if self.start <= at < self.stop:
            self._completions.append(at - self.start)
            self.outcome.bytes_received += size

    def record_lateness(self, nanoseconds: int, due: int) -> None:
        """A request was sent so long after it could have been."""
        if self.start <= due < self.stop:
            self._lateness.append(nanoseconds)

    def flush(self) -> None:
        """Take what is kept into the histograms."""
        outcome = self.outcome
        outcome.uncorrected.add(self._uncorrected)
        outcome.corrected.add(self._corrected)
        outcome.lateness.add(self._lateness)
        outcome.completed += len(self._completions)
        for after in self._completions:
            second = after // 1_000_000_000
            while len(outcome.each_second) <= second:
                outcome.each_second.append(0)
            outcome.each_second[second] += 1
        for kept in (self._uncorrected, self._corrected, self._lateness, self._completions):
            kept.clear()


class WorkloadBuffer:
    """A workload's bytes, ready to be cut and compared. One for all connections."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.length = len(workload)
        self.cycle_size = sum(map(len, workload.responses))
        times = MAX_READ // self.cycle_size + 2
        self.responses = b"".join(workload.responses) * times
        self.response_ends = list(accumulate(len(each) for each in workload.responses * times))
        self.requests = workload.requests * 2

    def request_bytes(self, first: int, count: int) -> bytes:
        """The bytes of `count` requests, from the one at place `first` on."""
        if count == 1:
            return self.requests[first]
        if first + count <= len(self.requests):
            return b"".join(self.requests[first : first + count])
        return b"".join(self.requests[(first + each) % self.length] for each in range(count))


class RequestTracker:
    """The requests of one connection.

    `broken`: what comes next can't be told from what came before; close the connection.
    """

    __slots__ = (
        "_buffer",
        "_counters",
        "_expired",
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
        self._offset = 0  # in the ring of answers: where the next byte stands
        self._sent_count = 0  # requests, ever
        self._highest_answered = -1  # the latest that was answered
        self._partial = b""  # the beginning of an answer, while answers are looked at one by one
        self._expired: deque[int] = deque(maxlen=buffer.length)  # given up, but may still come
        self.pending: deque[tuple[int, int, int]] = deque()
        """(number, due, sent), the oldest first."""
        self.desynced = False

    def send(self, count: int, due: int, now: int) -> bytes:
        """The bytes of the next `count` requests, which are open from now on."""
        first = self._sent_count
        for number in range(first, first + count):
            self.pending.append((number, due, now))
        self._sent_count += count
        return self._buffer.request_bytes(first % self._buffer.length, count)

    def receive(self, data: bytes, at: int) -> int:
        """Take what came; how many requests are no longer open because of it."""
        before = len(self.pending)
        if self._message_oriented:
            self._receive_datagram(data, at)
        elif self._resyncing:
            self._receive_resyncing(data, at)
        else:
            self._compare(data, at)
        return before - len(self.pending)

    def connection_closed(self) -> None:
        """The stream is over, by whatever cause: what is open is lost, and an answer that had begun short."""
        faults = self._counters.outcome.faults
        if self.pending and (self._partial or (not self._resyncing and self._partial_size())):
            self.pending.popleft()
            faults.short += 1
        faults.lost += len(self.pending)
        self.pending.clear()

    def expire(self, before: int) -> int:
        """Give up what was sent before then; how many those are. What still comes for them is late."""
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
        # Asked for: whole answers, and the beginning of one more only if one more is open.
        inside = count == 0 or end > ring.response_ends[first + count - 1]
        if data != ring.responses[start:end] or count + inside > len(self.pending):
            self._start_resync(data, at)
            return
        for place in range(count):
            number, due, sent = self.pending.popleft()
            self._counters.record_response(
                due, sent, at, len(ring.workload.responses[(first + place) % ring.length])
            )
            self._highest_answered = number
        self._offset = end % ring.cycle_size

    def _partial_size(self) -> int:
        """Bytes that have come of the answer at hand."""
        before = bisect_right(self._buffer.response_ends, self._offset)
        return self._offset - (self._buffer.response_ends[before - 1] if before else 0)

    def _start_resync(self, data: bytes, at: int) -> None:
        inside = self._partial_size()
        self._resyncing = True
        self._receive_resyncing(self._buffer.responses[self._offset - inside : self._offset] + data, at)

    def _receive_resyncing(self, data: bytes, at: int) -> None:
        end = self._buffer.workload.terminator
        if not end:
            if data:
                self._receive_unterminated(data, at)
            return
        *whole, self._partial = (self._partial + data).split(end)
        for answer in whole:
            self._match_response(answer + end, at)
        longest = self._buffer.workload.uniform_size or max(map(len, self._buffer.workload.responses))
        if len(self._partial) > 2 * longest:  # no end in sight
            self._counters.outcome.faults.wrong += 1
            self._partial, self.desynced = b"", True

    def _receive_unterminated(self, data: bytes, at: int) -> None:
        """What still agrees is counted; then the rest can't be assigned to any request."""
        answers, ring = self._buffer.workload.responses, self._buffer
        while self.pending:
            answer = answers[self.pending[0][0] % ring.length]
            if not data.startswith(answer):
                break
            number, due, sent = self.pending.popleft()
            self._counters.record_response(due, sent, at, len(answer))
            self._highest_answered = number
            data = data[len(answer) :]
        if data:
            if self.pending:
                self.pending.popleft()
            self._counters.outcome.faults.wrong += 1
        self.desynced = True

    # One answer ------------------------------------------------------------------------------------

    def _receive_datagram(self, data: bytes, at: int) -> None:
        answers, length = self._buffer.workload.responses, self._buffer.length
        if (
            self.pending
            and data == answers[self.pending[0][0] % length]
            and self.pending[0][0] > self._highest_answered
        ):
            number, due, sent = self.pending.popleft()
            self._counters.record_response(due, sent, at, len(data))
            self._highest_answered = number
        else:
            self._match_response(data, at)

    def _match_response(self, data: bytes, at: int) -> None:
        workload, faults = self._buffer.workload, self._counters.outcome.faults
        place = workload.index_by_response.get(data)
        if place is None:
            self._classify_fault(data)
            return
        number = (
            self._pending_at(place)
            if workload.is_numbered
            else (self.pending[0][0] if self.pending else None)
        )
        if number is None:
            gone = next((each for each in self._expired if each % len(workload) == place), None)
            if gone is not None:
                self._expired.remove(gone)
                faults.late += 1
            elif workload.is_numbered and self._sent_count:
                faults.duplicated += 1
            else:
                faults.wrong += 1
            return
        due, sent = self._pop_pending(number)
        if number < self._highest_answered:
            faults.reordered += 1
        self._highest_answered = max(self._highest_answered, number)
        self._counters.record_response(due, sent, at, len(data))

    def _classify_fault(self, data: bytes) -> None:
        """Not what anybody asked for. By its number it may still be told whose answer it should have been."""
        workload, faults = self._buffer.workload, self._counters.outcome.faults
        place = (
            workload.index_by_number.get(data[: len(next(iter(workload.index_by_number), b""))])
            if workload.index_by_number
            else None
        )
        number = self._pending_at(place) if place is not None else None
        if number is None and self.pending:
            number = self.pending[0][0]
        if number is None:
            faults.wrong += 1
            return
        self._pop_pending(number)
        expected = workload.responses[number % len(workload)]
        bare = data.removesuffix(workload.terminator) if workload.terminator else data
        if len(data) < len(expected) and expected.startswith(bare):
            faults.short += 1
        else:
            faults.wrong += 1

    def _pending_at(self, place: int) -> int | None:
        """The number of the open request at this place of the ring; the newest, should another wait there."""
        length = self._buffer.length
        return next((each[0] for each in reversed(self.pending) if each[0] % length == place), None)

    def _pop_pending(self, number: int) -> tuple[int, int]:
        for each in self.pending:
            if each[0] == number:
                self.pending.remove(each)
                return each[1], each[2]
        raise KeyError(number)
