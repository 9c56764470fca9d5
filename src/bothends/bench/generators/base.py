"""The contract of a load generator: the plan of a run and its outcome.

A generator is one process or thread that drives one target. `python.py` and `native.py` implement this
contract. Internal times are nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol

from bothends.bench.heat_map import HeatMap
from bothends.bench.histogram import Histogram
from bothends.bench.http_target import HttpExchange
from bothends.bench.results import Faults
from bothends.bench.schedule import Schedule
from bothends.bench.workload import Workload
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint

UNRESPONSIVE_AFTER: Final = 1.0
"""Seconds without a response, while connections fail, after which the run ends."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The parameters of a run. Times in seconds.

    `connections`: concurrent connections. `depth`: maximum pending requests on each. `schedule` None: a
    closed loop. `reconnect`: a new connection for each request. Requests sent (or due) in the `duration`
    after the `warmup` count; their responses are awaited for up to `timeout`. `begin`: start of the warm-up,
    by time.monotonic(); None: as soon as all connections are open. `http`: responses are those of HTTP, and
    this is what they must be; None: they are those of the workload.
    """

    endpoint: Endpoint
    workload: Workload
    connections: int = 1
    depth: int = 1
    schedule: Schedule | None = None
    duration: float = 1.0
    warmup: float = 0.0
    timeout: float = 1.0
    reconnect: bool = False
    tls: TlsOptions | None = None
    begin: float | None = None
    http: HttpExchange | None = None

    @property
    def target(self) -> str:
        """The target as the user wrote it: a URL of HTTP, or the endpoint."""
        return self.http.url if self.http is not None else str(self.endpoint)


@dataclass(slots=True)
class RunOutcome:
    """The outcome of a run; fields as in `results.Round`.

    Over the measured time, in seconds: `cpu` is the generator's CPU time, `run_queue_wait` the time it was
    runnable while other processes had the CPU, and `wall` the elapsed time. For HTTP: `statuses` counts
    responses by status, `malformed` malformed ones by reason, and `closes` connections that the server closed
    after a response. `wait`, `first_byte` and `transfer` are the parts of the latencies, `heat` is the
    latencies over time.
    """

    faults: Faults = field(default_factory=Faults)
    uncorrected: Histogram = field(default_factory=Histogram)
    corrected: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    each_second: list[int] = field(default_factory=list)
    completed: int = 0
    bytes_received: int = 0
    unsent: int = 0
    connections_made: int = 0
    cpu: float = 0.0
    run_queue_wait: float = 0.0
    wall: float = 0.0
    ended: str = ""
    statuses: dict[int, int] = field(default_factory=dict)
    malformed: dict[str, int] = field(default_factory=dict)
    closes: int = 0
    wait: Histogram = field(default_factory=Histogram)
    first_byte: Histogram = field(default_factory=Histogram)
    transfer: Histogram = field(default_factory=Histogram)
    heat: HeatMap = field(default_factory=HeatMap)


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run: `elapsed` of `total` seconds, correct responses and faults so far."""

    elapsed: float
    total: float
    completed: int
    faults: int


ProgressCallback = Callable[[Progress], None]


class Generator(Protocol):
    """Drives a target according to a plan."""

    name: ClassVar[str]

    def run(
        self,
        plan: RunPlan,
        on_progress: ProgressCallback | None = None,
        hooks: MeasurementHooks | None = None,
    ) -> RunOutcome:
        """Run a plan. `on_progress` is called several times per second.

        Raises BothendsError if the first connection cannot be opened.
        """
        ...


class MeasurementHooks(Protocol):
    """Callbacks at the start and end of the measured time, to measure the server's resource usage."""

    def measurement_started(self) -> None:
        """Called at the end of the warm-up."""

    def measurement_ended(self) -> None:
        """Called at the end of the measured time."""
