"""Several targets under several loads: interleaved in random order, so that a slow minute meets all of them.

In each round every target runs once for each transport, in an order of that round's own, and is measured
under every load in turn, also in random order. What is compared are ratios within a round.
"""

from __future__ import annotations

import errno
import random
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bothends.bench.generators.base import Plan, Watch
from bothends.bench.histogram import Histogram
from bothends.bench.host_info import private_memory
from bothends.bench.load import generator, load_of, measure
from bothends.bench.results import IDLE, Cost, Entry, Faults, Latency, Own, Round
from bothends.bench.targets import (
    Place,
    Target,
    ended_with_us,
    on_processor,
    processors,
    raise_limit_of_files,
    running,
)
from bothends.bench.workload import numbered
from bothends.endpoints import Endpoint
from bothends.errors import SystemRefused

HELD: Final = 10_000
"""Connections that are held for the memory of one."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A load to compare under. `idle`: connections are only held, and the server's memory is measured."""

    name: str
    transport: str = "tcp"
    connections: int = 1
    depth: int = 1
    reconnect: bool = False
    idle: bool = False


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("one"),
        Kind("fifty", connections=50),
        Kind("thousand", connections=1000),
        Kind("deep", connections=50, depth=16),
        Kind("reconnect", connections=50, reconnect=True),
        Kind("udp", "udp", depth=50),
        Kind("idle", connections=HELD, idle=True),
    )
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How often, how long (seconds), and with which seed the order is drawn."""

    rounds: int = 5
    duration: float = 1.0
    warmup: float = 0.2
    size: int = 64
    timeout: float = 2.0
    seed: int = 1
    generator: str = "auto"


Told = Callable[[int, int, str], Watch | None]
"""Is told which measurement of how many begins, and of what; gives who watches it."""


def compare(targets: Sequence[Target], kinds: Sequence[Kind], settings: Settings, told: Told) -> list[Entry]:
    """Measure all of them; an entry for each target under each load.

    Raises BothendsError for a target that can't be started.
    """
    raise_limit_of_files()
    chance = random.Random(settings.seed)
    entries = {(t.name, k.name): _entry(t, k, settings) for k in kinds for t in targets}
    runs = [(t, transport) for t in targets for transport in dict.fromkeys(k.transport for k in kinds)]
    total = settings.rounds * sum(not each.skipped for each in entries.values())
    done = 0
    server_cpu, our_cpu = processors()
    with (
        ended_with_us(),
        tempfile.TemporaryDirectory(prefix="bothends-bench-") as folder,
        on_processor(our_cpu),
    ):
        for _ in range(settings.rounds):
            for target, transport in chance.sample(runs, len(runs)):
                wanted = [
                    k for k in kinds if k.transport == transport and not entries[target.name, k.name].skipped
                ]
                if not wanted:
                    continue
                with running(target, transport, Path(folder), server_cpu) as place:
                    for kind in chance.sample(wanted, len(wanted)):
                        entry = entries[target.name, kind.name]
                        watch = told(done, total, f"{target.name}, {entry.load.title}")
                        entry.rounds.append(_measured(place, kind, settings, watch))
                        done += 1
    return list(entries.values())


def _entry(target: Target, kind: Kind, settings: Settings) -> Entry:
    plan = _plan(Endpoint(kind.transport, host="127.0.0.1", port=1), kind, settings)
    load = load_of(plan)
    if kind.idle:
        load.workload = IDLE
    where = (
        str(target.address) if target.address is not None else " ".join(dict(target.commands).get("tcp", ()))
    )
    return Entry(target.name, where, load, skipped=target.can(kind.transport, kind.connections))


def _plan(endpoint: Endpoint, kind: Kind, settings: Settings) -> Plan:
    newline = not endpoint.has_boundaries
    return Plan(
        endpoint,
        numbered(settings.size, "upper", newline=newline, depth=kind.depth),
        connections=kind.connections,
        depth=kind.depth,
        duration=settings.duration,
        warmup=settings.warmup,
        timeout=settings.timeout,
        reconnect=kind.reconnect,
    )


def _measured(place: Place, kind: Kind, settings: Settings, watch: Watch | None) -> Round:
    plan = _plan(place.endpoint, kind, settings)
    if kind.idle:
        # Whatever the server keeps for all together (a pool of buffers) is touched before, and not counted.
        brief = replace(plan, connections=min(50, kind.connections), duration=0.3)
        measure(brief, by=generator(settings.generator, brief))
        return _idle(place, plan)
    return measure(plan, by=generator(settings.generator, plan), watch=watch, server=place.pid)


def _idle(place: Place, plan: Plan) -> Round:
    """Memory a connection: each asks once, so that it is accepted and in conversation, and stays."""
    began = time.monotonic()
    socks: list[socket.socket] = []
    question, expected = plan.workload.sends[0], plan.workload.answers[0]
    faults = Faults()
    try:
        before = private_memory(place.pid) if place.pid is not None else 0
        for _ in range(plan.connections):
            sock = socket.create_connection((place.endpoint.host, place.endpoint.port or 0), plan.timeout)
            socks.append(sock)
            sock.sendall(question)
            if sock.recv(len(expected), socket.MSG_WAITALL) != expected:
                faults.wrong += 1
        after = private_memory(place.pid) if place.pid is not None else 0
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL):
            raise SystemRefused("open a connection to", place.endpoint.label, error.errno or 0) from error
        faults.refused += 1
        after = before
    finally:
        for sock in socks:
            sock.close()
    seconds = time.monotonic() - began
    memory = (after - before) / max(len(socks), 1) if place.pid is not None and not faults.total else None
    return Round(
        seconds=seconds,
        completed=len(socks),
        per_s=0.0,
        bytes_received=len(socks) * len(expected),
        faults=faults,
        uncorrected=Latency.of(Histogram()),
        corrected=None,
        own=Own("Python, blocking", 0.0),
        connections_made=len(socks),
        server=Cost(memory_kib_per_connection=memory),
    )
