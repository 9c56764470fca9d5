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

from bothends.bench.generators.base import Outcome
from bothends.bench.workload import Workload

CHUNK: Final = 256 * 1024
"""Most bytes of one read: the ring of answers is repeated until one comparison can take so many."""

BATCH: Final = 32 * 1024
"""Latencies that are kept as they are before they are counted, all at once."""


class Tally:
    """What all connections of a run add to. The window from `start` to `stop` is what counts."""

    def __init__(self) -> None:
        self.outcome = Outcome()
        self.start = 0
        self.stop = 0
        self.answered = 0
        """Intact answers, whenever they came."""
        self._uncorrected: list[int] = []
        self._corrected: list[int] = []
        self._lateness: list[int] = []
        self._completions: list[int] = []

    def intact(self, due: int, sent: int, at: int, size: int) -> None:
        """An intact answer of `size` bytes to a request that was due and sent then."""
        self.answered += 1
        if self.start <= due < self.stop:
            self._uncorrected.append(at - sent)
            self._corrected.append(at - due)
            if len(self._uncorrected) >= BATCH:
                self.count()
        if self.start <= at < self.stop:
            self._completions.append(at - self.start)
            self.outcome.bytes_received += size

    def late(self, nanoseconds: int, due: int) -> None:
        """A request was sent so long after it could have been."""
        if self.start <= due < self.stop:
            self._lateness.append(nanoseconds)

    def count(self) -> None:
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


class Ring:
    """A workload's bytes, ready to be cut and compared. One for all connections."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.length = len(workload)
        self.round = sum(map(len, workload.answers))
        times = CHUNK // self.round + 2
        self.answers = b"".join(workload.answers) * times
        self.ends = list(accumulate(len(each) for each in workload.answers * times))
        self.sends = workload.sends * 2

    def sending(self, first: int, count: int) -> bytes:
        """The bytes of `count` requests, from the one at place `first` on."""
        if count == 1:
            return self.sends[first]
        if first + count <= len(self.sends):
            return b"".join(self.sends[first : first + count])
        return b"".join(self.sends[(first + each) % self.length] for each in range(count))


class Ledger:
    """The requests of one connection.

    `broken`: what comes next can't be told from what came before; close the connection.
    """

    __slots__ = (
        "_at",
        "_boundaries",
        "_careful",
        "_gone",
        "_highest",
        "_kept",
        "_ring",
        "_sent",
        "_tally",
        "broken",
        "open",
    )

    def __init__(self, ring: Ring, tally: Tally, *, boundaries: bool) -> None:
        self._ring = ring
        self._tally = tally
        self._boundaries = boundaries
        self._careful = False
        self._at = 0  # in the ring of answers: where the next byte stands
        self._sent = 0  # requests, ever
        self._highest = -1  # the latest that was answered
        self._kept = b""  # the beginning of an answer, while answers are looked at one by one
        self._gone: deque[int] = deque(maxlen=ring.length)  # given up, but may still come
        self.open: deque[tuple[int, int, int]] = deque()
        """(number, due, sent), the oldest first."""
        self.broken = False

    def send(self, count: int, due: int, now: int) -> bytes:
        """The bytes of the next `count` requests, which are open from now on."""
        first = self._sent
        for number in range(first, first + count):
            self.open.append((number, due, now))
        self._sent += count
        return self._ring.sending(first % self._ring.length, count)

    def receive(self, data: bytes, at: int) -> int:
        """Take what came; how many requests are no longer open because of it."""
        before = len(self.open)
        if self._boundaries:
            self._datagram(data, at)
        elif self._careful:
            self._one_by_one(data, at)
        else:
            self._compared(data, at)
        return before - len(self.open)

    def end(self) -> None:
        """The stream is over, by whatever cause: what is open is lost, and an answer that had begun short."""
        faults = self._tally.outcome.faults
        if self.open and (self._kept or (not self._careful and self._inside())):
            self.open.popleft()
            faults.short += 1
        faults.lost += len(self.open)
        self.open.clear()

    def overdue(self, before: int) -> int:
        """Give up what was sent before then; how many those are. What still comes for them is late."""
        if not self.open or self.open[0][2] >= before:
            return 0
        count = 0
        while self.open and self.open[0][2] < before:
            self._gone.append(self.open.popleft()[0])
            count += 1
        if not self._boundaries:
            self.broken = not self._ring.workload.end
            if not self._careful:
                self._begin_to_doubt(b"", 0)
        return count

    # Streams ---------------------------------------------------------------------------------------

    def _compared(self, data: bytes, at: int) -> None:
        ring, start = self._ring, self._at
        end = start + len(data)
        first = bisect_right(ring.ends, start)
        count = bisect_right(ring.ends, end, first) - first
        # Asked for: whole answers, and the beginning of one more only if one more is open.
        inside = count == 0 or end > ring.ends[first + count - 1]
        if data != ring.answers[start:end] or count + inside > len(self.open):
            self._begin_to_doubt(data, at)
            return
        for place in range(count):
            number, due, sent = self.open.popleft()
            self._tally.intact(due, sent, at, len(ring.workload.answers[(first + place) % ring.length]))
            self._highest = number
        self._at = end % ring.round

    def _inside(self) -> int:
        """Bytes that have come of the answer at hand."""
        before = bisect_right(self._ring.ends, self._at)
        return self._at - (self._ring.ends[before - 1] if before else 0)

    def _begin_to_doubt(self, data: bytes, at: int) -> None:
        inside = self._inside()
        self._careful = True
        self._one_by_one(self._ring.answers[self._at - inside : self._at] + data, at)

    def _one_by_one(self, data: bytes, at: int) -> None:
        end = self._ring.workload.end
        if not end:
            if data:
                self._without_ends(data, at)
            return
        *whole, self._kept = (self._kept + data).split(end)
        for answer in whole:
            self._answer(answer + end, at)
        longest = self._ring.workload.uniform or max(map(len, self._ring.workload.answers))
        if len(self._kept) > 2 * longest:  # no end in sight
            self._tally.outcome.faults.wrong += 1
            self._kept, self.broken = b"", True

    def _without_ends(self, data: bytes, at: int) -> None:
        """What still agrees is counted; then the rest can't be assigned to any request."""
        answers, ring = self._ring.workload.answers, self._ring
        while self.open:
            answer = answers[self.open[0][0] % ring.length]
            if not data.startswith(answer):
                break
            number, due, sent = self.open.popleft()
            self._tally.intact(due, sent, at, len(answer))
            self._highest = number
            data = data[len(answer) :]
        if data:
            if self.open:
                self.open.popleft()
            self._tally.outcome.faults.wrong += 1
        self.broken = True

    # One answer ------------------------------------------------------------------------------------

    def _datagram(self, data: bytes, at: int) -> None:
        answers, length = self._ring.workload.answers, self._ring.length
        if self.open and data == answers[self.open[0][0] % length] and self.open[0][0] > self._highest:
            number, due, sent = self.open.popleft()
            self._tally.intact(due, sent, at, len(data))
            self._highest = number
        else:
            self._answer(data, at)

    def _answer(self, data: bytes, at: int) -> None:
        workload, faults = self._ring.workload, self._tally.outcome.faults
        place = workload.places.get(data)
        if place is None:
            self._faulty(data)
            return
        number = self._open_at(place) if workload.numbers else (self.open[0][0] if self.open else None)
        if number is None:
            gone = next((each for each in self._gone if each % len(workload) == place), None)
            if gone is not None:
                self._gone.remove(gone)
                faults.late += 1
            elif workload.numbers and self._sent:
                faults.duplicated += 1
            else:
                faults.wrong += 1
            return
        due, sent = self._take(number)
        if number < self._highest:
            faults.reordered += 1
        self._highest = max(self._highest, number)
        self._tally.intact(due, sent, at, len(data))

    def _faulty(self, data: bytes) -> None:
        """Not what anybody asked for. By its number it may still be told whose answer it should have been."""
        workload, faults = self._ring.workload, self._tally.outcome.faults
        place = workload.heads.get(data[: len(next(iter(workload.heads), b""))]) if workload.heads else None
        number = self._open_at(place) if place is not None else None
        if number is None and self.open:
            number = self.open[0][0]
        if number is None:
            faults.wrong += 1
            return
        self._take(number)
        expected = workload.answers[number % len(workload)]
        bare = data.removesuffix(workload.end) if workload.end else data
        if len(data) < len(expected) and expected.startswith(bare):
            faults.short += 1
        else:
            faults.wrong += 1

    def _open_at(self, place: int) -> int | None:
        """The number of the open request at this place of the ring; the newest, should another wait there."""
        length = self._ring.length
        return next((each[0] for each in reversed(self.open) if each[0] % length == place), None)

    def _take(self, number: int) -> tuple[int, int]:
        for each in self.open:
            if each[0] == number:
                self.open.remove(each)
                return each[1], each[2]
        raise KeyError(number)
