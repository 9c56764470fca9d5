"""All engines side by side: how many requests a second, and what each costs the server.

Every round measures every engine once, in random order, so that a slow minute of the machine meets
all of them; what counts is the median over rounds of the ratio to one engine in the same round. The
server runs on one processor and the generator on another, where there are two. The generator is plain
Python and is busy before a fast server is: requests a second say little above its own limit, which
is why the server's processor time a request stands beside them.
"""

from __future__ import annotations

import os
import random
import re
import resource
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bothends.engines import registry

MESSAGE: Final = b"x" * 63 + b"\n"
TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """One workload on one engine in one round."""

    per_second: float
    cpu: float  # seconds of the server's processor time a request, its children's included


class Server:
    """`bothends serve upper` in a process of its own, on the first processor."""

    def __init__(self, engine: str) -> None:
        endpoints = ["tcp://127.0.0.1:0"]
        if registry.load(engine).datagrams:
            endpoints.append("udp://127.0.0.1:0")
        command = [
            sys.executable,
            "-m",
            "bothends",
            "serve",
            "--quiet",
            "upper",
            *endpoints,
            "--engine",
            engine,
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_on_first)  # noqa: PLW1509
        self.ports: dict[str, int] = {}
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"(tcp|udp)://127\.0\.0\.1:(\d+)$", line.strip()):
                self.ports.setdefault(found[1], int(found[2]))
            if line.startswith("  engine"):
                break

    def cpu(self) -> float:
        """Seconds of processor time, of the server and of every process that it has started."""
        total = 0.0
        for pid in [self.process.pid, *_children(self.process.pid)]:
            fields = _stat(pid)
            total += sum(int(each) for each in fields[11:15]) / TICKS if fields else 0.0
        return total

    def stop(self) -> None:
        """Drain and leave."""
        self.process.terminate()
        self.process.wait(20)
        assert self.process.stderr is not None
        self.process.stderr.close()


def exchange(server: Server, connections: int, seconds: float) -> Measured:
    """So many connections, each with one request on its way."""
    place = ("127.0.0.1", server.ports["tcp"])
    socks = {}
    for _ in range(connections):
        sock = socket.create_connection(place)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        socks[sock.fileno()] = sock
    poller = select.epoll()
    for descriptor in socks:
        poller.register(descriptor, select.EPOLLIN)
    expected = MESSAGE.upper()
    for sock in socks.values():
        sock.send(MESSAGE)
    before, start, count = server.cpu(), time.perf_counter(), 0
    while (now := time.perf_counter()) < start + seconds:
        for descriptor, _ in poller.poll(seconds):
            sock = socks[descriptor]
            assert sock.recv(1024) == expected
            sock.send(MESSAGE)
            count += 1
    measured = Measured(count / (now - start), (server.cpu() - before) / max(count, 1))
    poller.close()
    for sock in socks.values():
        sock.close()
    return measured


def reconnect(server: Server, seconds: float) -> Measured:
    """Connect, ask, be answered, close; one after another."""
    place = ("127.0.0.1", server.ports["tcp"])
    expected = MESSAGE.upper()
    before, start, count = server.cpu(), time.perf_counter(), 0
    while (now := time.perf_counter()) < start + seconds:
        with socket.create_connection(place) as sock:
            sock.send(MESSAGE)
            assert sock.recv(1024) == expected
        count += 1
    return Measured(count / (now - start), (server.cpu() - before) / max(count, 1))


def datagrams(server: Server, seconds: float, outstanding: int = 20) -> Measured | None:
    """So many datagrams on their way at a time, from one socket; None where the engine has none."""
    if "udp" not in server.ports:
        return None
    expected = MESSAGE.upper()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", server.ports["udp"]))
        for _ in range(outstanding):
            sock.send(MESSAGE)
        before, start, count = server.cpu(), time.perf_counter(), 0
        while (now := time.perf_counter()) < start + seconds:
            assert sock.recv(1024) == expected
            sock.send(MESSAGE)
            count += 1
    return Measured(count / (now - start), (server.cpu() - before) / max(count, 1))


WORKLOADS: Final[dict[str, Callable[[Server, float], Measured | None]]] = {
    "50 connections": lambda server, seconds: exchange(server, 50, seconds),
    "a connection each": reconnect,
    "datagrams": datagrams,
}


def run(rounds: int, seconds: float, seed: int, baseline: str = "epoll") -> list[list[str]]:
    """Measure; the rows of a table, a workload and an engine in each."""
    engines = [name for name in registry.names() if registry.load(name).missing() is None]
    chance = random.Random(seed)
    found: dict[tuple[str, str], list[Measured | None]] = {}
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for number in range(rounds):
        for engine in chance.sample(engines, len(engines)):
            server = Server(engine)
            try:
                for workload, measure in WORKLOADS.items():
                    if workload == "50 connections" and not _serves(engine, 50):
                        found.setdefault((workload, engine), []).append(None)
                        continue
                    found.setdefault((workload, engine), []).append(measure(server, seconds))
            finally:
                server.stop()
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return [_row(workload, engine, found, baseline) for workload in WORKLOADS for engine in engines]


def _row(
    workload: str, engine: str, found: dict[tuple[str, str], list[Measured | None]], baseline: str
) -> list[str]:
    ours = found[workload, engine]
    base = found[workload, baseline]
    pairs = [(one, other) for one, other in zip(ours, base, strict=True) if one and other]
    if not pairs:
        return [workload, engine, "-", "-", "-", "-"]
    speed = statistics.median(one.per_second / other.per_second for one, other in pairs)
    cost = statistics.median(one.cpu / other.cpu for one, other in pairs if other.cpu)
    rate = statistics.median(one.per_second for one, _ in pairs)
    cpu = statistics.median(one.cpu for one, _ in pairs)
    return [workload, engine, f"{rate:,.0f}", f"{speed:.2f}", f"{cpu * 1e6:.1f}", f"{cost:.2f}"]


def _serves(engine: str, connections: int) -> bool:
    """Whether so many connections that stay open are all served: a fixed number of processes or
    threads, or one, would leave the others waiting."""
    return engine not in ("iterative", "prefork") and not (engine == "pool" and connections > 32)


def _on_first() -> None:
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {0})


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as listing:
            return [int(each) for each in listing.read().split()]
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/stat") as line:
            return line.read().rpartition(")")[2].split()
    except OSError:
        return []
