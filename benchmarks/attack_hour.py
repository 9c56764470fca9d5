"""make attack-hour: mixed attacks on engines, an hour for each; several at a time, in random order.

For each engine two servers: one is attacked, one is left alone, and an honest client asks both all the time.
So what the machine does to latencies is in both p99s, and their ratio says what the attacks do. After a
warm-up and at the end the attacked server is idle for some seconds; what it then has more than before is
leaked. Exit status 1 if an answer was wrong, p99 rose above ten times its quiet value, or something leaked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bothends.attack import health
from bothends.attack.attacks.registry import ATTACKS
from bothends.attack.expectation import Expectation
from bothends.attack.health import Health
from bothends.attack.honest import HonestClient, Sample, learn
from bothends.attack.results import HonestFigures
from bothends.endpoints import Endpoint
from bothends.engines.registry import ENGINES

SETTLE: Final = 10.0  # seconds of honest requests before the attacks
WARM_UP: Final = 60.0  # seconds at most, and a quarter of the time at most
IDLE: Final = 20.0  # seconds: fork still forks for queued clients that have gone, for 10 s after an attack
AT_ONCE: Final = 2  # attackers
NICENESS: Final = "10"  # of the attackers: where processors are short, the server gets them first
TIMEOUT: Final = 1.0  # seconds after which an honest request is unanswered
MAX_P99: Final = 10  # times the quiet value
MIN_P99: Final = 0.05  # seconds: below it, the machine is measured, not the server
MAX_GROWTH: Final = 16 << 20  # bytes of memory from the end of the warm-up to the end

# Engines that serve a fixed number of connections, or need a process for each, are not for clients that are
# not trusted; with these limits they serve others again after some time.
LIMITS: Final = {
    "iterative": ["--idle", "1", "--life", "5"],
    "prefork": ["--idle", "1", "--life", "5"],
    "pool": ["--idle", "1", "--life", "5"],
    "fork": ["--idle", "2", "--life", "10", "--max-connections", "300"],
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was seen at one engine: honest requests, and what it had when idle.

    `quiet` and `attacked` are the honest client's figures at the two servers in the same period. `before` the
    attacks, after the warm-up (`warm`) and at the end (`idle`). `peak` in bytes. `p99` in seconds, quiet and
    attacked, with the requests that were not answered in time.
    """

    engine: str
    quiet: HonestFigures
    attacked: HonestFigures
    before: Health
    warm: Health
    idle: Health
    peak: int
    p99: tuple[float, float]
    status: int | None

    @property
    def faults(self) -> list[str]:
        """What must not be."""
        found = []
        if self.attacked.wrong:
            found.append(f"{self.attacked.wrong} wrong answers")
        if self.p99[1] > max(MIN_P99, MAX_P99 * self.p99[0]):
            found.append("p99")
        if self.idle.descriptors > self.before.descriptors or self.idle.threads > self.before.threads:
            found.append("descriptors or threads")
        if self.idle.processes > self.before.processes or self.idle.zombies:
            found.append("processes")
        if self.idle.memory > self.warm.memory + MAX_GROWTH:
            found.append("memory")
        if self.status != 0:
            found.append(f"exit status {self.status}")
        return found


@contextlib.contextmanager
def serving(engine: str, options: list[str]) -> Iterator[tuple[subprocess.Popen[str], Endpoint]]:
    """Run a server. Yields its process and its endpoint."""
    words = [
        sys.executable,
        "-m",
        "bothends",
        "serve",
        "-q",
        "upper",
        "tcp://127.0.0.1:0",
        "--engine",
        engine,
    ]
    with subprocess.Popen([*words, *options], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if found := re.search(r"tcp://127\.0\.0\.1:\d+", line):
                    break
            else:
                raise SystemExit(f"{engine} does not start")
            yield process, Endpoint.parse(found[0])
        finally:
            process.kill()


@contextlib.contextmanager
def asking(endpoint: Endpoint, expectation: Expectation) -> Iterator[HonestClient]:
    """Run an honest client."""
    client = HonestClient(endpoint, expectation, TIMEOUT)
    client.start()
    try:
        yield client
    finally:
        client.stop()


class Attackers:
    """Some attackers, each of them replaced by another one when it ends."""

    def __init__(self, endpoint: Endpoint, expectation: Expectation, seed: int) -> None:
        self._endpoint = endpoint
        self._request = expectation.message(0).hex()
        self._generator = random.Random(seed)
        self._running: list[subprocess.Popen[bytes]] = []
        self._names = [each.id for each in ATTACKS.values() if each.kind == "stream" and not each.starves]

    def run(self, seconds: float, pids: list[int]) -> int:
        """Attack for a time. Returns the largest memory of the server meanwhile, in bytes."""
        peak, end = 0, time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._running = [each for each in self._running if each.poll() is None]
            while len(self._running) < AT_ONCE:
                self._start(min(left, self._generator.uniform(2, 8)))
            peak = max(peak, health.read_memory_usage(pids))
            time.sleep(0.5)
        self.stop()
        return peak

    def _start(self, duration: float) -> None:
        process = subprocess.Popen(
            ["nice", "-n", NICENESS, sys.executable, "-m", "bothends.attack.attacker_process"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        plan: dict[str, Any] = {
            "attack": self._generator.choice(self._names),
            "endpoint": str(self._endpoint),
            "request": self._request,
            "seed": str(self._generator.random()),
            "duration": duration,
        }
        assert process.stdin is not None
        process.stdin.write(json.dumps(plan).encode() + b"\n")
        process.stdin.flush()
        self._running.append(process)

    def stop(self) -> None:
        """End all attackers."""
        for process in self._running:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        self._running = []


def percentile_99(samples: list[Sample]) -> float:
    """Return the 99th percentile of the latencies, in seconds; of an unanswered request it is its timeout."""
    found = sorted(each.seconds for each in samples if each.outcome in ("right", "unanswered"))
    return found[min(len(found) - 1, len(found) * 99 // 100)] if found else 0.0


def attack(engine: str, seconds: float, options: list[str], seed: int) -> Outcome:
    """Attack a server with this engine for a time."""
    warm_up = min(WARM_UP, seconds / 4)
    with serving(engine, options) as (process, endpoint), serving(engine, options) as (_, left_alone):
        expectation = learn(endpoint, None)
        pids = [process.pid]
        with asking(endpoint, expectation):
            time.sleep(SETTLE)
        time.sleep(IDLE)
        before = health.read_health(pids)
        attackers = Attackers(endpoint, expectation, seed)
        quiet: list[Sample] = []
        samples: list[Sample] = []
        readings: list[Health] = []
        peak = 0
        for duration in (warm_up, seconds - warm_up):
            with asking(left_alone, expectation) as alone, asking(endpoint, expectation) as honest:
                started = time.monotonic()
                try:
                    peak = max(peak, attackers.run(duration, pids))
                finally:
                    attackers.stop()
                ended = time.monotonic()
            quiet += alone.taken(started, ended)
            samples += honest.taken(started, ended)
            time.sleep(IDLE)
            readings.append(health.read_health(pids))
        warm, idle = readings
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(15)
        except subprocess.TimeoutExpired:
            status = None
    return Outcome(
        engine,
        HonestFigures.of(quiet),
        HonestFigures.of(samples),
        before,
        warm,
        idle,
        peak,
        (percentile_99(quiet), percentile_99(samples)),
        status,
    )


HEADS: Final = (
    "engine", "options", "right", "wrong", "refused", "lost", "unanswered", "p99 quiet, attacked (ms)",
    "memory before, warm, after, peak (MiB)", "descriptors", "threads", "faults",
)  # fmt: skip


def row(seen: Outcome, options: list[str]) -> str:
    """Return a row of the table."""
    honest = seen.attacked
    sizes = (seen.before.memory, seen.warm.memory, seen.idle.memory, seen.peak)
    cells = [
        seen.engine,
        " ".join(options) or "-",
        *(
            f"{each:,}"
            for each in (honest.right, honest.wrong, honest.refused, honest.lost, honest.unanswered)
        ),
        ", ".join(f"{1000 * each:.1f}" for each in seen.p99),
        ", ".join(f"{each >> 20}" for each in sizes),
        f"{seen.before.descriptors}, {seen.idle.descriptors}",
        f"{seen.before.threads}, {seen.idle.threads}",
        ", ".join(seen.faults) or "none",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="make attack-hour", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="for each engine (3600)")
    parser.add_argument("--engine", action="append", choices=list(ENGINES), default=[])
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}", flush=True)
    failed = False
    for engine in given.engine or list(ENGINES):
        options = LIMITS.get(engine, [])
        seen = attack(engine, given.seconds, options, given.seed)
        failed |= bool(seen.faults)
        print(row(seen, options), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
