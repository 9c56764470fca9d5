"""One load from many machines: the generator spread over a dask.distributed cluster.

Each worker opens its share of the connections, waits for the agreed time, and drives its share of the
schedule; histograms are merged here. All machines' clocks tell the time of day, so the beginning is agreed by
that; how far they are apart is measured beforehand and told. Workers need bothends with its extra `bench`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Final

from bothends.bench.generators.base import RunOutcome, RunPlan
from bothends.bench.histogram import merge_histograms
from bothends.bench.load import round_from_outcome, select_generator
from bothends.bench.results import Faults, GeneratorUsage, LatencySummary, Round
from bothends.errors import BothendsError, Unavailable, UsageError

START_DELAY: Final = 1.0
"""Seconds from handing out the plans to the beginning, at least: connections are opened meanwhile."""


@dataclass(frozen=True, slots=True)
class Shard:
    """What one worker found. `refused`: the error of a worker that could not even begin."""

    worker: str
    name: str
    outcome: RunOutcome | None
    start_delay: float = 0.0
    error: str = ""


def split_plan(plan: RunPlan, count: int) -> list[RunPlan]:
    """One plan for each of so many workers; together they are the whole.

    Raises CallerError where there are fewer connections than workers.
    """
    if plan.connections < count:
        words = f"{plan.connections} connections can't be spread over {count} workers"
        raise UsageError(f"{words}: --connections {count} or more")
    parts = []
    for place in range(count):
        connections = plan.connections // count + (place < plan.connections % count)
        schedule = plan.schedule
        if schedule is not None:
            schedule = replace(schedule, first=place, step=count)
        parts.append(replace(plan, connections=connections, schedule=schedule))
    return parts


def measure_on_cluster(scheduler: str, plan: RunPlan, prefer: str = "auto") -> tuple[Round, list[str]]:
    """One round by all workers of the cluster, and notes on who took part.

    Raises Unavailable where dask.distributed isn't installed or no scheduler answers, CallerError where there
    are too few connections, and what kept every worker from beginning.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        hint = "pip install 'bothends[cluster]'"
        raise Unavailable("use", "a cluster", reason="distributed isn't installed", hint=hint) from error
    try:
        client: Any = Client(scheduler, timeout=5, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:  # a TimeoutError is an OSError
        reason = f"no scheduler answers there ({str(error)[:100] or type(error).__name__})"
        raise Unavailable("reach", scheduler, reason=reason, hint="dask scheduler starts one") from error
    with client:
        return _measure_with(client, plan, prefer)


def _measure_with(client: Any, plan: RunPlan, prefer: str) -> tuple[Round, list[str]]:
    workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
    if not workers:
        raise Unavailable(
            "use", "the cluster", reason="it has no workers", hint="dask worker ADDRESS starts one"
        )
    plans = split_plan(plan, len(workers))
    before = time.time()
    clocks = client.run(time.time, workers=workers)
    apart = max(abs(clock - before) for clock in clocks.values())
    begin = time.time() + START_DELAY + plan.connections / 5000
    futures = [
        client.submit(
            run_shard, part, begin, worker, prefer, workers=[worker], pure=False, allow_other_workers=False
        )
        for part, worker in zip(plans, workers, strict=True)
    ]
    parts: list[Shard] = client.gather(futures)
    notes = [f"{len(workers)} workers; their clocks differ from ours by {apart * 1000:.1f} ms or less."]
    notes += [f"{part.worker} could not begin: {part.error}" for part in parts if part.error]
    notes += [
        f"{part.worker} began {part.start_delay:.3f} s late." for part in parts if part.start_delay > 0.05
    ]
    return merge_shards(plan, parts), notes


def run_shard(plan: RunPlan, begin: float, worker: str, prefer: str) -> Shard:
    """On a worker: run a plan from `begin` on, a time of day (time.time())."""
    late = max(0.0, time.time() - begin)
    # The generator counts by the monotonic clock: here is what it shows when that time has come.
    at = time.monotonic() + (begin - time.time())
    try:
        made_by = select_generator(prefer, plan)
        outcome = made_by.run(replace(plan, begin=max(at, time.monotonic())))
    except BothendsError as error:
        return Shard(worker, "", None, late, str(error))
    return Shard(worker, made_by.name, outcome, late)


def merge_shards(plan: RunPlan, parts: Sequence[Shard]) -> Round:
    """One round of all of them. Raises CallerError if none could begin."""
    began = [(part, part.outcome) for part in parts if part.outcome is not None]
    if not began:
        raise UsageError(f"no worker could begin; the first says: {parts[0].error}")
    rounds = [round_from_outcome(plan, outcome, part.name) for part, outcome in began]
    faults = Faults(refused=len(parts) - len(began))
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
            merge_histograms(outcome.uncorrected for _, outcome in began)
        ),
        corrected=LatencySummary.from_histogram(merge_histograms(outcome.corrected for _, outcome in began))
        if is_open
        else None,
        own=own,
        unsent=sum(each.unsent for each in rounds),
        connections_made=sum(each.connections_made for each in rounds),
        each_second=[sum(counts) for counts in zip_longest(*seconds_of, fillvalue=0)],
        ended=next((each.ended for each in rounds if each.ended), ""),
    )
