"""Generate one load from several machines, with dask.distributed.

Each worker opens its share of the connections, waits for the common start time, and drives its share of the
schedule; histograms are merged here. The start time is a time of day, because monotonic clocks of different
machines are unrelated. The difference between the clocks is measured first and reported. Workers need
bothends with its extra `cluster`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Final

from bothends.bench.generators.base import RunOutcome, RunPlan
from bothends.bench.histogram import merge_histograms
from bothends.bench.load import (
    http_counts,
    latency_heat_map,
    latency_parts,
    round_from_outcome,
    select_generator,
)
from bothends.bench.results import Faults, GeneratorUsage, LatencySummary, Round
from bothends.errors import BothendsError, Unavailable, UsageError

START_DELAY: Final = 1.0
"""Minimum seconds from distributing the plans to the start; connections are opened meanwhile."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The outcome of one worker. `error` is the message of a worker that could not start.

    `start_delay`: seconds that the worker received its plan after the common start time.
    """

    worker: str
    name: str
    outcome: RunOutcome | None
    start_delay: float = 0.0
    error: str = ""


def split_plan(plan: RunPlan, count: int) -> list[RunPlan]:
    """Split a plan among `count` workers: connections and schedule.

    Raises UsageError if there are fewer connections than workers.
    """
    if plan.connections < count:
        problem = f"{plan.connections} connections can't be spread over {count} workers"
        raise UsageError(f"{problem}: use --connections {count} or more")
    parts = []
    for index in range(count):
        connections = plan.connections // count + (index < plan.connections % count)
        schedule = plan.schedule
        if schedule is not None:
            schedule = replace(schedule, first=index, step=count)
        parts.append(replace(plan, connections=connections, schedule=schedule))
    return parts


def measure_on_cluster(client: Any, plan: RunPlan, prefer: str = "auto") -> tuple[Round, list[str]]:
    """Run one round on all workers of a cluster. `client`: of `dask_cluster.connect`.

    Returns: the merged round, and notes about the workers.

    Raises Unavailable if there are no workers; UsageError if there are too few connections, or no worker
    could start.
    """
    workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
    if not workers:
        raise Unavailable(
            "use", "the cluster", reason="it has no workers", hint="start one with: dask worker ADDRESS"
        )
    plans = split_plan(plan, len(workers))
    before = time.time()
    clocks = client.run(time.time, workers=workers)
    clock_difference = max(abs(clock - before) for clock in clocks.values())
    begin = time.time() + START_DELAY + plan.connections / 5000
    futures = [
        client.submit(
            run_shard, part, begin, worker, prefer, workers=[worker], pure=False, allow_other_workers=False
        )
        for part, worker in zip(plans, workers, strict=True)
    ]
    parts: list[Shard] = client.gather(futures)
    largest = f"{clock_difference * 1000:.1f} ms"
    notes = [f"{len(workers)} workers; their clocks differ from the local one by at most {largest}."]
    notes += [f"{part.worker} could not start: {part.error}" for part in parts if part.error]
    notes += [
        f"{part.worker} started {part.start_delay:.3f} s late." for part in parts if part.start_delay > 0.05
    ]
    return merge_shards(plan, parts), notes


def run_shard(plan: RunPlan, begin: float, worker: str, prefer: str) -> Shard:
    """Run a plan on a worker, starting at `begin`, a time of day (time.time())."""
    late = max(0.0, time.time() - begin)
    # The generator uses the monotonic clock, so the time of day is converted to this machine's.
    at = time.monotonic() + (begin - time.time())
    try:
        generator = select_generator(prefer, plan)
        outcome = generator.run(replace(plan, begin=max(at, time.monotonic())))
    except BothendsError as error:
        return Shard(worker, "", None, late, str(error))
    return Shard(worker, generator.name, outcome, late)


def merge_shards(plan: RunPlan, parts: Sequence[Shard]) -> Round:
    """Merge the outcomes of all workers into a round. Raises UsageError if none could start."""
    started = [(part, part.outcome) for part in parts if part.outcome is not None]
    if not started:
        raise UsageError(f"no worker could start; the first error: {parts[0].error}")
    rounds = [round_from_outcome(plan, outcome, part.name) for part, outcome in started]
    faults = Faults(refused=len(parts) - len(started))
    for each in rounds:
        faults = faults.plus(each.faults)
    seconds = max(each.seconds for each in rounds)
    completed = sum(each.completed for each in rounds)
    seconds_of = [each.each_second for each in rounds]
    late = [each.own.lateness for each in rounds if each.own.lateness is not None]
    busiest = max(rounds, key=lambda each: each.own.cpu_share)
    own = GeneratorUsage(
        f"{len(rounds)} times {busiest.own.name}",
        busiest.own.cpu_share,
        max(each.own.starved_share for each in rounds),
        LatencySummary.merge(late) if late else None,
        next((each.own.limit for each in rounds if each.own.limit), ""),
    )
    is_open = plan.schedule is not None
    return Round(
        seconds=seconds,
        completed=completed,
        per_s=completed / seconds if seconds else 0.0,
        bytes_received=sum(each.bytes_received for each in rounds),
        faults=faults,
        uncorrected=LatencySummary.from_histogram(
            merge_histograms(outcome.uncorrected for _, outcome in started)
        ),
        corrected=LatencySummary.from_histogram(merge_histograms(outcome.corrected for _, outcome in started))
        if is_open
        else None,
        own=own,
        unsent=sum(each.unsent for each in rounds),
        connections_made=sum(each.connections_made for each in rounds),
        each_second=[sum(counts) for counts in zip_longest(*seconds_of, fillvalue=0)],
        ended=next((each.ended for each in rounds if each.ended), ""),
        http=http_counts(*(outcome for _, outcome in started)) if plan.http is not None else None,
        parts=latency_parts(*(outcome for _, outcome in started)),
        heat=latency_heat_map(plan, *(outcome for _, outcome in started)),
    )
