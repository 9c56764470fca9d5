"""Results of measurements, in a versioned format: JSON by msgspec.

Pure. Field names carry units: `_us` microseconds, `_s` seconds, `_per_s` per second. A `Document` holds
entries (one target under one load each), an entry holds rounds, and a round the result of one run.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Literal

import msgspec

from bothends.bench.histogram import Histogram, merge_histograms
from bothends.errors import UsageError
from bothends.escaping import escape_line, escape_text
from bothends.foreign_text import json_text

VERSION: Final = 1
_SURROGATES: Final = re.compile("[\ud800-\udfff]+")
IDLE: Final = "idle"

MAX_ROUNDS: Final = 1000
"""Rounds of an entry, as `--rounds` allows."""

MAX_SIZE: Final = 256 << 20
"""Bytes of a result file: far above the result of any campaign."""

# Bounds of what a file may contain. They keep sums, ratios and percentages of the figures finite and exact.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Figure = Annotated[float, msgspec.Meta(ge=0, le=1e18)]
SignedFigure = Annotated[float, msgspec.Meta(ge=-1e18, le=1e18)]

STARVED_SHARE: Final = 0.1
"""Share of the time waiting for a CPU from which other processes distort the result."""


class Faults(msgspec.Struct):
    """Counts of faults, by kind.

    Connections: `refused` (connect failed: ECONNREFUSED and other errors), `reset` (RST or another error on
    an open connection), `silent` (no connection or handshake within the timeout), `out_of_ports` (connect
    failed with EADDRNOTAVAIL: no local port is free, which is not the server's fault).
    HTTP responses: `wrong_status` (another status than expected), `malformed` (it breaks the grammar of RFC
    9112).
    Requests: `timed_out` (no response within the timeout, streams), `lost` (the same for datagrams, and
    requests pending on a stream that ended), `short` (truncated response), `wrong` (other bytes, or
    unsolicited bytes), `duplicated`, `reordered` (RFC 4737: after a later response), `late` (after the
    request was counted as lost or timed out).
    """

    refused: Count = 0
    reset: Count = 0
    silent: Count = 0
    timed_out: Count = 0
    lost: Count = 0
    short: Count = 0
    wrong: Count = 0
    duplicated: Count = 0
    reordered: Count = 0
    late: Count = 0
    out_of_ports: Count = 0
    wrong_status: Count = 0
    malformed: Count = 0

    @property
    def total(self) -> int:
        """Number of faults of all kinds."""
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, int]:
        """Return name -> count, in the order above."""
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def plus(self, other: Faults) -> Faults:
        """Return the sum of both."""
        return Faults(**{name: count + getattr(other, name) for name, count in self.as_dict().items()})

    def __str__(self) -> str:
        found = [f"{count:,} {name.replace('_', ' ')}" for name, count in self.as_dict().items() if count]
        return ", ".join(found) or "none"


class LatencySummary(msgspec.Struct):
    """Statistics of a histogram, and the histogram itself (HdrHistogram V2, base64, nanoseconds).

    `percentiles_us`: p50, p90, p99, p99.9, without those for which `n` is too small.
    """

    n: Count
    mean_us: Figure
    max_us: Figure
    percentiles_us: dict[str, Figure]
    histogram: str

    @classmethod
    def from_histogram(cls, histogram: Histogram) -> LatencySummary:
        """Compute the statistics of a histogram."""
        found = {name: value / 1000 for name, value in histogram.percentiles().items()}
        mean, largest = histogram.mean / 1000, histogram.maximum / 1000
        return cls(histogram.n, mean, largest, found, histogram.encode())

    @classmethod
    def merge(cls, several: Iterable[LatencySummary]) -> LatencySummary:
        """Merge several summaries by merging their histograms."""
        return cls.from_histogram(merge_histograms(Histogram.decode(each.histogram) for each in several))


class LatencyParts(msgspec.Struct):
    """The parts of each latency. They add up to the latency from the time a request was due.

    `wait`: due to sent, for a free connection or while one is opened. `first_byte`: sent to the first byte of
    the response. `transfer`: the first to the last byte.
    """

    wait: LatencySummary
    first_byte: LatencySummary
    transfer: LatencySummary


class LatencyHeatMap(msgspec.Struct):
    """Latencies over time, corrected ones in an open loop.

    `columns`: for each slice of the measured time, of `slice_s` seconds, the latencies of the requests that
    were due in it: row, count, row, count, ...; heat_map.py has the rows.
    """

    slice_s: Figure
    columns: list[list[Count]]


class GeneratorUsage(msgspec.Struct):
    """The load generator's own resource usage.

    `cpu_share`: CPU time as a share of one CPU, 0 to 1. `starved_share`: share of the time it was runnable
    while other processes had the CPU. `lateness`: delay of sends (open loop only). `limit`: why the generator
    rather than the target was the bottleneck; "" if it was not.
    """

    name: str
    cpu_share: Figure
    starved_share: Figure = 0.0
    lateness: LatencySummary | None = None
    limit: str = ""


class ServerCost(msgspec.Struct):
    """Resource usage of the server's processes, from /proc.

    Per request over the measured time. For a load that only holds connections open, memory per connection.
    """

    cpu_us_per_request: Figure | None = None
    cpu_share: Figure | None = None
    switches_per_request: Figure | None = None
    memory_kib_per_connection: SignedFigure | None = None


class HttpCounts(msgspec.Struct):
    """Responses of HTTP in the whole run, with the warm-up.

    `statuses`: responses by status. `malformed`: malformed responses by reason. `closes`: connections that
    the server closed after a response ("Connection: close", HTTP/1.0, or a body that ends with EOF).
    """

    statuses: dict[str, Count] = {}
    malformed: dict[str, Count] = {}
    closes: Count = 0


class TcpSample(msgspec.Struct):
    """Figures of one connection from struct tcp_info (tcp(7)), as the sender of its data has them.

    `cwnd`: congestion window in segments of `mss` bytes. `retransmissions`: segments since the start.
    `delivery_rate`: bytes per second, as the kernel last estimated it.
    """

    cwnd: Count
    mss: Count
    rtt_us: Count
    min_rtt_us: Count | None
    retransmissions: Count
    delivery_rate: Count | None


class BulkSample(msgspec.Struct):
    """A sample of a bulk transfer: bytes per second since the last one, and each connection's figures."""

    at_s: Figure
    sent_per_s: Figure
    received_per_s: Figure
    connections: list[TcpSample]


class BulkTransfer(msgspec.Struct):
    """A bulk transfer of a `kind` of bulk_pattern.py.

    `bytes_per_s`: bytes of the measured time that were received and right; for discard, bytes that the peer
    acknowledged. `sent` (over TCP: acknowledged) and `received`: bytes in both directions. `samples`: one
    every `interval_s` seconds.
    """

    kind: str
    bytes_per_s: Figure
    sent: Count
    received: Count
    interval_s: Figure
    samples: list[BulkSample]


class Round(msgspec.Struct):
    """The result of one run.

    `seconds`: measured time, after the warm-up. `completed`: correct responses received in it;
    `bytes_received`: their bytes. `uncorrected`: latency from the send. `corrected`: latency from the time
    the request was due; None in a closed loop, which has no schedule. `unsent`: requests that were due while
    no connection was free. `each_second`: correct responses in each second of the measured time. `ended`: why
    the run ended early; "" if it did not.
    """

    seconds: Figure
    completed: Count
    per_s: Figure
    bytes_received: Count
    faults: Faults
    uncorrected: LatencySummary
    corrected: LatencySummary | None
    own: GeneratorUsage
    unsent: Count = 0
    connections_made: Count = 0
    each_second: list[Count] = []
    ended: str = ""
    server: ServerCost | None = None
    http: HttpCounts | None = None
    parts: LatencyParts | None = None
    heat: LatencyHeatMap | None = None
    bulk: BulkTransfer | None = None

    @property
    def has_answer(self) -> bool:
        """Whether there was any response, or byte of a bulk transfer."""
        return bool(self.completed or self.uncorrected.n or (self.bulk is not None and self.bulk.bytes_per_s))

    @property
    def latency(self) -> LatencySummary:
        """The corrected latency in an open loop, the uncorrected latency in a closed loop."""
        return self.corrected if self.corrected is not None else self.uncorrected


class Load(msgspec.Struct):
    """The load on a target: the workload's name, and how it was sent. `rate` None: a closed loop.

    `verified`: what of each answer is compared; "": every byte.
    """

    workload: str
    transport: str
    connections: Count = 1
    depth: Count = 1
    size: str = ""
    reconnect: bool = False
    rate: Figure | None = None
    arrivals: Literal["fixed", "poisson"] = "fixed"
    duration_s: Figure = 0.0
    warmup_s: Figure = 0.0
    timeout_s: Figure = 0.0
    seed: Count = 1
    verified: str = ""

    @property
    def is_idle(self) -> bool:
        """Whether connections are only held open, to measure the server's memory."""
        return self.workload == IDLE

    @property
    def is_bulk(self) -> bool:
        """Whether a transfer is measured rather than requests."""
        return self.workload.startswith("bulk ")

    @property
    def title(self) -> str:
        """A short description that distinguishes the load from others of a campaign."""
        parts = [self.transport, f"{self.connections:,} connection" + "s" * (self.connections != 1)]
        if self.is_bulk:
            parts.append(self.workload)
        if self.depth > 1:
            parts.append(f"depth {self.depth}")
        if self.reconnect:
            parts.append("one connection per request")
        if self.is_idle:
            parts.append("idle")
        if self.rate is not None:
            parts.append(f"{self.rate:,.0f}/s {'Poisson' if self.arrivals == 'poisson' else 'fixed'}")
        return ", ".join(parts)


class BenchEntry(msgspec.Struct):
    """One target under one load, and its rounds. `skipped`: why it was not measured; "" if it was."""

    name: str
    target: str
    load: Load
    rounds: Annotated[list[Round], msgspec.Meta(max_length=MAX_ROUNDS)] = []
    skipped: str = ""

    @property
    def faults(self) -> Faults:
        """The faults of all rounds."""
        total = Faults()
        for each in self.rounds:
            total = total.plus(each.faults)
        return total

    @property
    def failed(self) -> bool:
        """Whether there were faults, a round ended early, or a round got no response."""
        unanswered = any(each.ended or not each.has_answer for each in self.rounds)
        return bool(self.faults.total) or unanswered

    def median(self, value: Callable[[Round], float | None]) -> float | None:
        """Return the median of a figure over the rounds that have it; None if none has."""
        found = [figure for each in self.rounds if (figure := value(each)) is not None]
        return statistics.median(found) if found else None


class Document(msgspec.Struct, tag_field="kind", tag="bothends bench"):
    """The results of one command. `made`: time in ISO 8601, UTC. `machine`: see `host_info`."""

    version: Count
    made: str
    command: str
    machine: dict[str, str]
    entries: list[BenchEntry]
    baseline: str = ""
    notes: list[str] = []
    knee: list[BenchEntry] = []


def encode(document: Document) -> bytes:
    """Encode a document as indented JSON. Lone surrogates of a command line are escaped."""
    return json_text(_encodable(msgspec.to_builtins(document)), indent=1).encode() + b"\n"


def _encodable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_encodable(name): _encodable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    return _SURROGATES.sub(lambda match: escape_line(match[0]), value) if isinstance(value, str) else value


def decode(data: bytes, where: str) -> Document:
    """Decode a document. `where` names its origin in errors.

    Raises UsageError if it is malformed or of another version.
    """
    try:
        found = msgspec.json.decode(data, type=Document)
    except RecursionError as error:
        raise UsageError(f"{where}: not a result of `bothends bench --json`: nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{where}: not a result of `bothends bench --json`: {escape_text(str(error))}"
        ) from error
    if found.version != VERSION:
        raise UsageError(f"{where}: format version {found.version} is not supported, only {VERSION}")
    return found
