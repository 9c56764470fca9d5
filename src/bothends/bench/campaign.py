"""Measure several targets under several loads, in random order, so that a slow minute affects all alike.

In each round every target runs once per transport, and is measured under each of its loads. Both orders are
drawn for each round. Comparisons use ratios within a round.
"""

from __future__ import annotations

import errno
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bothends.bench.generators.base import ProgressCallback, RunPlan
from bothends.bench.histogram import Histogram
from bothends.bench.host_info import private_memory
from bothends.bench.load import load_from_plan, measure, select_generator
from bothends.bench.results import IDLE, BenchEntry, Faults, GeneratorUsage, LatencySummary, Round, ServerCost
from bothends.bench.targets import (
    BenchTarget,
    RunningTarget,
    choose_cpus,
    kill_targets_on_exit,
    pinned_to_cpu,
    raise_fd_limit,
    run_target,
)
from bothends.bench.workload import numbered
from bothends.endpoints import Endpoint
from bothends.errors import OUT_OF_DESCRIPTORS, SystemCallFailed
from bothends.osutil.scratch import scratch_folder

IDLE_CONNECTIONS: Final = 10_000
"""Connections that are held open to measure the memory of one."""


@dataclass(frozen=True, slots=True)
class LoadProfile:
    """A load of a campaign. `idle`: connections are only held open, to measure the server's memory."""

    name: str
    transport: str = "tcp"
    connections: int = 1
    depth: int = 1
    reconnect: bool = False
    idle: bool = False


LOAD_PROFILES: Final = {
    profile.name: profile
    for profile in (
        LoadProfile("one"),
        LoadProfile("fifty", connections=50),
        LoadProfile("thousand", connections=1000),
        LoadProfile("deep", connections=50, depth=16),
        LoadProfile("reconnect", connections=50, reconnect=True),
        LoadProfile("udp", "udp", depth=50),
        LoadProfile("idle", connections=IDLE_CONNECTIONS, idle=True),
    )
}


@dataclass(frozen=True, slots=True)
class CampaignSettings:
    """Settings of a campaign. Times in seconds, `size` in bytes; `seed` determines the random order."""

    rounds: int = 5
    duration: float = 1.0
    warmup: float = 0.2
    size: int = 64
    timeout: float = 2.0
    seed: int = 1
    generator: str = "auto"


OnMeasurement = Callable[[int, int, str], ProgressCallback | None]
"""Called before each measurement with its index, their total, and a description. Returns a progress callback
or None."""


def run_campaign(
    targets: Sequence[BenchTarget],
    profiles: Sequence[LoadProfile],
    settings: CampaignSettings,
    on_measurement: OnMeasurement,
) -> list[BenchEntry]:
    """Measure all targets under all loads. Returns an entry for each target and load.

    Raises BothendsError if a target cannot be started.
    """
    raise_fd_limit()
    order = random.Random(settings.seed)
    entries = {(t.name, p.name): _entry(t, p, settings) for p in profiles for t in targets}
    runs = [(t, transport) for t in targets for transport in dict.fromkeys(p.transport for p in profiles)]
    total = settings.rounds * sum(not each.skipped for each in entries.values())
    done = 0
    server_cpu, generator_cpu = choose_cpus()
    with (
        kill_targets_on_exit(),
        scratch_folder("bench") as folder,
        pinned_to_cpu(generator_cpu),
    ):
        for _ in range(settings.rounds):
            for target, transport in order.sample(runs, len(runs)):
                supported = [
                    p
                    for p in profiles
                    if p.transport == transport and not entries[target.name, p.name].skipped
                ]
                if not supported:
                    continue
                with run_target(target, transport, folder, server_cpu) as running:
                    for profile in order.sample(supported, len(supported)):
                        entry = entries[target.name, profile.name]
                        on_progress = on_measurement(done, total, f"{target.name}, {entry.load.title}")
                        entry.rounds.append(_measure(running, profile, settings, on_progress))
                        done += 1
    return list(entries.values())


def _entry(target: BenchTarget, profile: LoadProfile, settings: CampaignSettings) -> BenchEntry:
    plan = _plan(Endpoint(profile.transport, host="127.0.0.1", port=1), profile, settings)
    load = load_from_plan(plan)
    if profile.idle:
        load.workload = IDLE
    address = (
        str(target.address) if target.address is not None else " ".join(dict(target.commands).get("tcp", ()))
    )
    return BenchEntry(
        target.name, address, load, skipped=target.unsupported_reason(profile.transport, profile.connections)
    )


def _plan(endpoint: Endpoint, profile: LoadProfile, settings: CampaignSettings) -> RunPlan:
    newline = not endpoint.is_message_oriented
    return RunPlan(
        endpoint,
        numbered(settings.size, "upper", newline=newline, depth=profile.depth),
        connections=profile.connections,
        depth=profile.depth,
        duration=settings.duration,
        warmup=settings.warmup,
        timeout=settings.timeout,
        reconnect=profile.reconnect,
    )


def _measure(
    target: RunningTarget,
    profile: LoadProfile,
    settings: CampaignSettings,
    on_progress: ProgressCallback | None,
) -> Round:
    plan = _plan(target.endpoint, profile, settings)
    if profile.idle:
        # Memory shared by all connections, such as a buffer pool, is touched first, so that it isn't counted.
        warmup = replace(plan, connections=min(50, profile.connections), duration=0.3)
        measure(warmup, generator=select_generator(settings.generator, warmup))
        return _measure_idle_memory(target, plan)
    return measure(
        plan,
        generator=select_generator(settings.generator, plan),
        on_progress=on_progress,
        server_pid=target.pid,
    )


def _measure_idle_memory(target: RunningTarget, plan: RunPlan) -> Round:
    """Measure the memory per connection.

    Each connection sends one request, so that the server has accepted and served it, and stays open.
    """
    started = time.monotonic()
    socks: list[socket.socket] = []
    request, expected = plan.workload.requests[0], plan.workload.responses[0]
    faults = Faults()
    try:
        before = private_memory(target.pid) if target.pid is not None else 0
        for _ in range(plan.connections):
            sock = socket.create_connection((target.endpoint.host, target.endpoint.port or 0), plan.timeout)
            socks.append(sock)
            sock.sendall(request)
            if sock.recv(len(expected), socket.MSG_WAITALL) != expected:
                faults.wrong += 1
        after = private_memory(target.pid) if target.pid is not None else 0
    except OSError as error:
        if error.errno in OUT_OF_DESCRIPTORS | {errno.EADDRNOTAVAIL}:
            raise SystemCallFailed("open a connection to", target.endpoint.label, error.errno or 0) from error
        faults.refused += 1
        after = before
    finally:
        for sock in socks:
            sock.close()
    seconds = time.monotonic() - started
    memory = (after - before) / max(len(socks), 1) if target.pid is not None and not faults.total else None
    return Round(
        seconds=seconds,
        completed=len(socks),
        per_s=0.0,
        bytes_received=len(socks) * len(expected),
        faults=faults,
        uncorrected=LatencySummary.from_histogram(Histogram()),
        corrected=None,
        own=GeneratorUsage("Python, blocking", 0.0),
        connections_made=len(socks),
        server=ServerCost(memory_kib_per_connection=memory),
    )
