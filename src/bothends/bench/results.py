"""What a measurement leaves behind, in a form that has a version: JSON by msgspec.

Pure. Names carry units: `_us` microseconds, `_s` seconds, `_per_s` a second. A `Document` holds entries (one
target under one workload each), an entry its rounds, a round what one run gave.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec

from bothends.bench.histogram import Histogram, merge_histograms
from bothends.errors import UsageError

VERSION: Final = 1
IDLE: Final = "idle"


class Faults(msgspec.Struct):
    """What went wrong, counted apart.

    Connections: `refused` (not to be had: ECONNREFUSED and other errors of connecting), `reset` (RST, or
    another error while it was in use), `silent` (no connection, or no handshake, within the time limit).
    Requests: `timed_out` (no answer within the time limit, streams), `lost` (the same for datagrams; and
    what was open on a stream that ended), `short` (the answer ended early), `wrong` (other bytes, or bytes
    that nobody asked for), `duplicated`, `reordered` (RFC 4737: after a later one), `late` (after it had been
    counted as lost or timed out).
    """

    refused: int = 0
    reset: int = 0
    silent: int = 0
    timed_out: int = 0
    lost: int = 0
    short: int = 0
    wrong: int = 0
    duplicated: int = 0
    reordered: int = 0
    late: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, int]:
        """Name -> count, in the order above."""
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def plus(self, other: Faults) -> Faults:
        """Both together."""
        return Faults(**{name: count + getattr(other, name) for name, count in self.as_dict().items()})

    def __str__(self) -> str:
        found = [f"{count:,} {name.replace('_', ' ')}" for name, count in self.as_dict().items() if count]
        return ", ".join(found) or "none"


class LatencySummary(msgspec.Struct):
    """A histogram's figures, and the histogram itself (HdrHistogram V2, base64, nanoseconds).

    `percentiles_us`: p50, p90, p99, p99.9, less those that `n` can't carry.
    """

    n: int
    mean_us: float
    max_us: float
    percentiles_us: dict[str, float]
    histogram: str

    @classmethod
    def from_histogram(cls, histogram: Histogram) -> LatencySummary:
        """The figures of a histogram."""
        found = {name: value / 1000 for name, value in histogram.percentiles().items()}
        mean, largest = histogram.mean / 1000, histogram.maximum / 1000
        return cls(histogram.n, mean, largest, found, histogram.encode())

    @classmethod
    def merge(cls, several: Iterable[LatencySummary]) -> LatencySummary:
        """One of several, from their histograms."""
        return cls.from_histogram(merge_histograms(Histogram.decode(each.histogram) for each in several))


class GeneratorUsage(msgspec.Struct):
    """The generator's own load.

    `cpu_share` of one processor, 0 to 1; `starved_share`: of the time, how much it could have run and
    something else had the processor. `lateness`: how long after a request could have been sent it was
    (open loop only). `limit`: why the generator, not the target, bounded what was measured; "" if it didn't.
    """

    name: str
    cpu_share: float
    starved_share: float = 0.0
    lateness: LatencySummary | None = None
    limit: str = ""


class ServerCost(msgspec.Struct):
    """What the server's processes used, by /proc, over the measured time and its requests; or, by a load that
    only holds connections, the memory of one.
    """

    cpu_us_per_request: float | None = None
    cpu_share: float | None = None
    switches_per_request: float | None = None
    memory_kib_per_connection: float | None = None


class Round(msgspec.Struct):
    """What one run gave.

    `seconds` were measured, after the warm-up. `completed`: intact answers that came in that time;
    `bytes_received` theirs. `uncorrected` counts latency from the send, `corrected` from when it was due: it
    is None in a closed loop, which has no schedule. `unsent`: requests that were due and for which no
    connection was free. `each_second`: intact answers in each second from the beginning of the measured time.
    `ended`: why it ended before its time; "" if it didn't.
    """

    seconds: float
    completed: int
    per_s: float
    bytes_received: int
    faults: Faults
    uncorrected: LatencySummary
    corrected: LatencySummary | None
    own: GeneratorUsage
    unsent: int = 0
    connections_made: int = 0
    each_second: list[int] = []
    ended: str = ""
    server: ServerCost | None = None

    @property
    def latency(self) -> LatencySummary:
        """The figure to go by: corrected where there is a schedule."""
        return self.corrected if self.corrected is not None else self.uncorrected


class Load(msgspec.Struct):
    """What was asked of the target: a workload's name, and how it was sent. `rate` None: a closed loop."""

    workload: str
    transport: str
    connections: int = 1
    depth: int = 1
    size: str = ""
    reconnect: bool = False
    rate: float | None = None
    arrivals: Literal["fixed", "poisson"] = "fixed"
    duration_s: float = 0.0
    warmup_s: float = 0.0
    timeout_s: float = 0.0
    seed: int = 1

    @property
    def is_idle(self) -> bool:
        """Connections are only held: what counts is the server's memory."""
        return self.workload == IDLE

    @property
    def title(self) -> str:
        """In a few words: what distinguishes it from others of the same comparison."""
        words = [self.transport, f"{self.connections:,} connection" + "s" * (self.connections != 1)]
        if self.depth > 1:
            words.append(f"depth {self.depth}")
        if self.reconnect:
            words.append("a connection each")
        if self.is_idle:
            words.append("idle")
        if self.rate is not None:
            words.append(f"{self.rate:,.0f}/s {'Poisson' if self.arrivals == 'poisson' else 'fixed'}")
        return ", ".join(words)


class BenchEntry(msgspec.Struct):
    """One target under one load, and its rounds. `skipped`: why there are none."""

    name: str
    target: str
    load: Load
    rounds: list[Round] = []
    skipped: str = ""

    @property
    def faults(self) -> Faults:
        """Of all rounds together."""
        total = Faults()
        for each in self.rounds:
            total = total.plus(each.faults)
        return total

    @property
    def failed(self) -> bool:
        """Something went wrong, or a round ended early, or nothing was answered."""
        unanswered = any(each.ended or not (each.completed or each.uncorrected.n) for each in self.rounds)
        return bool(self.faults.total) or unanswered

    def median(self, value: Callable[[Round], float | None]) -> float | None:
        """The median of a figure over the rounds that have it; None if none has."""
        found = [figure for each in self.rounds if (figure := value(each)) is not None]
        return statistics.median(found) if found else None


class Document(msgspec.Struct, tag_field="kind", tag="bothends bench"):
    """Everything that one command measured. `made`: when, ISO 8601, UTC. `machine`: name -> what it is."""

    version: int
    made: str
    command: str
    machine: dict[str, str]
    entries: list[BenchEntry]
    baseline: str = ""
    notes: list[str] = []
    knee: list[BenchEntry] = []


def encode(document: Document) -> bytes:
    """As JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def decode(data: bytes, where: str) -> Document:
    """Read a document; `where` it comes from is for the error.

    Raises CallerError for what is none, or of another version.
    """
    try:
        found = msgspec.json.decode(data, type=Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: no result of `bothends bench --json`: {error}") from error
    if found.version != VERSION:
        raise UsageError(f"{where}: a result of version {found.version}; this reads version {VERSION}")
    return found
