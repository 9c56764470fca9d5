"""Select and run a load generator, and decide whether it was the bottleneck."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bothends.bench.generators.base import Generator, ProgressCallback, RunOutcome, RunPlan
from bothends.bench.generators.native import NativeGenerator, is_usable, unsupported_reason
from bothends.bench.generators.python import PythonGenerator
from bothends.bench.heat_map import COLUMNS, merge_heat_maps
from bothends.bench.histogram import merge_histograms
from bothends.bench.host_info import ProcessUsage, process_usage, server_cost
from bothends.bench.rate_search import LatencyBound, search
from bothends.bench.results import (
    STARVED_SHARE,
    BenchEntry,
    GeneratorUsage,
    HttpCounts,
    LatencyHeatMap,
    LatencyParts,
    LatencySummary,
    Load,
    Round,
    ServerCost,
)
from bothends.bench.schedule import Schedule
from bothends.bench.workload import describe_sizes

BUSY_SHARE: Final = 0.95
"""CPU share from which a generator counts as saturated: the target may be faster than measured."""


LATE_SHARE: Final = 0.1
"""Lateness of sends, as a share of the latency, from which it distorts the result."""

LATE_FLOOR: Final = 100_000
"""Nanoseconds of lateness that are ignored: a wake-up takes that long."""


def select_generator(prefer: str, plan: RunPlan) -> Generator:
    """Select a generator: "native", "python", or "auto" for the fastest that supports the plan.

    Raises Unavailable if the native generator was not built, UnsupportedCombination if it does not support
    the plan.
    """
    if prefer != "python" and is_usable(prefer, plan.endpoint, unsupported_reason(plan)):
        return NativeGenerator()
    return PythonGenerator()


def measure(
    plan: RunPlan,
    *,
    generator: Generator | None = None,
    on_progress: ProgressCallback | None = None,
    server_pid: int | None = None,
) -> Round:
    """Run one round. `server_pid` is a process whose resource usage is measured, with its descendants.

    Raises BothendsError if the first connection cannot be opened.
    """
    used = generator or select_generator("auto", plan)
    meter = _Meter(server_pid) if server_pid is not None else None
    outcome = used.run(plan, on_progress, meter)
    return round_from_outcome(plan, outcome, used.name, meter)


def round_from_outcome(plan: RunPlan, outcome: RunOutcome, name: str, meter: _Meter | None = None) -> Round:
    """Turn a generator's outcome into a result."""
    seconds = outcome.wall or plan.duration
    is_open = plan.schedule is not None
    share = outcome.cpu / seconds if seconds else 0.0
    starved = outcome.run_queue_wait / seconds if seconds else 0.0
    late = LatencySummary.from_histogram(outcome.lateness) if is_open else None
    own = GeneratorUsage(name, share, starved, late, _generator_limit(outcome, share, starved))
    return Round(
        seconds=seconds,
        completed=outcome.completed,
        per_s=outcome.completed / seconds if seconds else 0.0,
        bytes_received=outcome.bytes_received,
        faults=outcome.faults,
        uncorrected=LatencySummary.from_histogram(outcome.uncorrected),
        corrected=LatencySummary.from_histogram(outcome.corrected) if is_open else None,
        own=own,
        unsent=outcome.unsent,
        connections_made=outcome.connections_made,
        each_second=outcome.each_second,
        ended=outcome.ended,
        server=meter.cost(outcome.completed) if meter is not None else None,
        http=http_counts(outcome) if plan.http is not None else None,
        parts=latency_parts(outcome),
        heat=latency_heat_map(plan, outcome),
    )


def latency_parts(*outcomes: RunOutcome) -> LatencyParts:
    """Summarize the parts of the latencies of one or several generators."""
    return LatencyParts(
        *(
            LatencySummary.from_histogram(merge_histograms(getattr(each, name) for each in outcomes))
            for name in ("wait", "first_byte", "transfer")
        )
    )


def latency_heat_map(plan: RunPlan, *outcomes: RunOutcome) -> LatencyHeatMap:
    """Return the latencies over time of one or several generators."""
    merged = merge_heat_maps(each.heat for each in outcomes)
    return LatencyHeatMap(plan.duration / COLUMNS, merged.columns())


def http_counts(*outcomes: RunOutcome) -> HttpCounts:
    """Return the sum of the counts that are of HTTP only."""
    counts = HttpCounts(closes=sum(each.closes for each in outcomes))
    for each in outcomes:
        for status, count in sorted(each.statuses.items()):
            counts.statuses[str(status)] = counts.statuses.get(str(status), 0) + count
        for reason, count in each.malformed.items():
            counts.malformed[reason] = counts.malformed.get(reason, 0) + count
    return counts


def load_from_plan(plan: RunPlan) -> Load:
    """Describe the load of a plan for a result."""
    schedule = plan.schedule
    return Load(
        workload=plan.workload.name,
        transport=plan.endpoint.scheme,
        connections=plan.connections,
        depth=plan.depth,
        size=_describe_requests(plan),
        reconnect=plan.reconnect,
        rate=schedule.rate if schedule is not None else None,
        arrivals=schedule.arrivals if schedule is not None else "fixed",
        duration_s=plan.duration,
        warmup_s=plan.warmup,
        timeout_s=plan.timeout,
        seed=schedule.seed if schedule is not None else 1,
        verified=plan.http.describe() if plan.http is not None else "",
    )


def _describe_requests(plan: RunPlan) -> str:
    sizes = describe_sizes(plan.workload.requests)
    return f"{plan.http.method}, {sizes}" if plan.http is not None else sizes


def run_rounds(
    plan: RunPlan,
    count: int,
    *,
    generator: Generator,
    progress_for: Callable[[int], ProgressCallback | None],
    server_pid: int | None = None,
) -> list[Round]:
    """Run `count` rounds, each with its own seed. Stops after a round that ended early."""
    rounds: list[Round] = []
    for number in range(count):
        schedule = plan.schedule
        if schedule is not None:
            schedule = replace(schedule, seed=schedule.seed + number)
        rounds.append(
            measure(
                replace(plan, schedule=schedule),
                generator=generator,
                on_progress=progress_for(number),
                server_pid=server_pid,
            )
        )
        if rounds[-1].ended:
            break
    return rounds


def find_max_rate(
    plan: RunPlan,
    bound: LatencyBound,
    *,
    generator: Generator,
    progress_for: Callable[[float], ProgressCallback | None],
    server_pid: int | None = None,
) -> tuple[float, list[BenchEntry]]:
    """Find the highest rate at which the bound holds.

    The search starts at a tenth of the throughput in a closed loop. Returns the rate (0.0 if none holds), and
    an entry for each rate that was tried. Raises BothendsError if the first connection cannot be opened.
    """
    closed = measure(
        replace(plan, schedule=None),
        generator=generator,
        on_progress=progress_for(0.0),
        server_pid=server_pid,
    )
    tried: list[BenchEntry] = []

    def holds(rate: float) -> bool:
        schedule = replace(plan.schedule, rate=rate) if plan.schedule is not None else Schedule(rate)
        rate_plan = replace(plan, schedule=schedule)
        for _ in range(2):  # repeated once: a moment of load from other processes must not end the search
            result = measure(
                rate_plan, generator=generator, on_progress=progress_for(rate), server_pid=server_pid
            )
            if bound.holds(result):
                break
        tried.append(BenchEntry(plan.endpoint.label, plan.target, load_from_plan(rate_plan), [result]))
        return bound.holds(result)

    rate, _ = search(holds, max(closed.per_s / 10, 1.0))
    return rate, tried


def _generator_limit(outcome: RunOutcome, share: float, starved: float) -> str:
    if starved >= STARVED_SHARE:
        return f"other processes had its CPU for {starved:.0%} of the time"
    if share + starved >= BUSY_SHARE:
        return f"it was busy {share:.0%} of the time: the target may be faster"
    late = outcome.lateness.percentile(99)
    if late is not None and late > LATE_FLOOR:
        typical = outcome.corrected.percentile(99) or 0
        if late > LATE_SHARE * typical:
            return f"1 % of its sends were at least {late / 1000:,.0f} us late, which counts as latency"
    return ""


class _Meter:
    """Measures the server's resource usage between the start and end of the measured time."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._first: ProcessUsage | None = None
        self._last: ProcessUsage | None = None

    def measurement_started(self) -> None:
        self._first = process_usage(self._pid)

    def measurement_ended(self) -> None:
        self._last = process_usage(self._pid)

    def cost(self, requests: int) -> ServerCost | None:
        """Return the server's cost per request; None unless both measurements were made."""
        if self._first is None or self._last is None:
            return None
        return server_cost(self._first, self._last, requests)
