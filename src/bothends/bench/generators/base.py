"""What a generator is asked for, and what it gives.

A generator is one process (or thread) that drives one target. Two keep this contract, `python.py` and
`native.py`; times inside are nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol

from bothends.bench.histogram import Histogram
from bothends.bench.results import Faults
from bothends.bench.schedule import Schedule
from bothends.bench.workload import Workload
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint

UNRESPONSIVE_AFTER: Final = 1.0
"""Seconds without an answer, while connections are refused, after which a target counts as gone."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run. Times in seconds.

    `connections` at once, `depth` requests open on each at most. `schedule` None: a closed loop.
    `reconnect`: a connection for each request. Requests that are sent (or due) in the `duration` after the
    `warmup` count; their answers are awaited up to `timeout`. `begin`: when the warm-up begins, by
    time.monotonic(); None: when all connections are there.
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


@dataclass(slots=True)
class RunOutcome:
    """What one run gave; as in `results.Round`. Over the measured time, in seconds: `cpu` that the generator
    used, `starved` in which it could have run and something else had the processor, and `wall`.
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


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: `elapsed` of `total` seconds, and what has come and gone wrong until now."""

    elapsed: float
    total: float
    completed: int
    faults: int


ProgressCallback = Callable[[Progress], None]


class Generator(Protocol):
    """Drives a target as a plan says."""

    name: ClassVar[str]

    def run(
        self,
        plan: RunPlan,
        on_progress: ProgressCallback | None = None,
        hooks: MeasurementHooks | None = None,
    ) -> RunOutcome:
        """Run it. `watch` is told several times a second how far it is, `marks` when it is measured.

        Raises BothendsError if not even the first connection can be opened.
        """
        ...


class MeasurementHooks(Protocol):
    """Who wants to look at the server when measuring begins, and when it ends."""

    def measurement_started(self) -> None:
        """The warm-up is over."""

    def measurement_ended(self) -> None:
        """The measured time is over."""
