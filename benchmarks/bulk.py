"""Compare `bothends bench --bulk` with iperf3: `python -m benchmarks.bulk`.

One connection over loopback, client and server each on a CPU, in an order that changes from round to round:
iperf3 to its server, which discards the data, and --bulk, in C and in Python, to the services discard, echo
and chargen. Of these iperf3 and discard send only; echo moves each byte twice and compares it, chargen
receives and compares. The processor time is that of the client.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bothends.bench.bulk_pattern import BulkKind
from bothends.bench.generators.bulk import run_bulk, select_bulk_generator
from bothends.bench.generators.bulk_base import BulkPlan
from bothends.bench.host_info import host_info
from bothends.bench.targets import BenchTarget, RunningTarget, choose_cpus, run_target
from bothends.osutil.reexec import self_command

HERE = Path(__file__).resolve().parent
SECONDS, ROUNDS, ATTEMPTS = 1.0, 7, 20

Measured = tuple[float, float]
"""Gbit/s, and the client's CPU time in milliseconds per GB."""


def own(kind: BulkKind, generator: str) -> tuple[BenchTarget, Callable[[RunningTarget], Measured]]:
    """Return the server and the measurement of a kind of transfer."""
    words = (*self_command(), "serve", "--quiet", kind, "tcp://127.0.0.1:0", "--engine", "native")

    def run(target: RunningTarget) -> Measured:
        plan = BulkPlan(target.endpoint, kind, duration=SECONDS, warmup=0.2)
        found = run_bulk(plan, generator=select_bulk_generator(generator, plan))
        assert found.bulk is not None
        assert not found.faults.total, found.faults
        speed = found.bulk.bytes_per_s
        return speed * 8e-9, found.own.cpu_share * 1e3 / (speed * 1e-9)

    return BenchTarget(kind, (("tcp", words),)), run


def iperf3() -> tuple[BenchTarget, Callable[[RunningTarget], Measured]]:
    """Return iperf3's server, and the measurement by its client."""

    def run(target: RunningTarget) -> Measured:
        command = [
            "iperf3",
            "--json",
            "-c",
            "127.0.0.1",
            "-p",
            str(target.endpoint.port),
            "-t",
            f"{SECONDS:.0f}",
        ]
        found: dict[str, Any] = {}
        # The connection that found the server ready may still keep it busy.
        for _ in range(ATTEMPTS):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            output = subprocess.run(command, capture_output=True, check=False).stdout
            found = json.loads(output or b"{}")
            if "error" not in found:
                break
            time.sleep(0.1)
        found = found["end"]
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        received = found["sum_received"]
        return received["bits_per_second"] * 1e-9, cpu * 1e3 / (received["bytes"] * 1e-9)

    return BenchTarget("iperf3", (("tcp", ("iperf3", "-s", "-p", "{port}")),)), run


def main() -> None:
    kinds: tuple[BulkKind, ...] = ("discard", "echo", "chargen")
    names = {"native": "C", "python": "Python"}
    found = {f"bench --bulk, in {names[each]}, {kind}": own(kind, each) for kind in kinds for each in names}
    if shutil.which("iperf3"):
        found["iperf3"] = iperf3()
    server_cpu, client_cpu = choose_cpus()
    results: dict[str, list[Measured]] = {name: [] for name in found}
    load_before = os.getloadavg()[0]
    if client_cpu is not None:
        os.sched_setaffinity(0, {client_cpu})
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            first = number % len(found)
            for name in [*list(found)[first:], *list(found)[:first]]:
                server, run = found[name]
                with run_target(server, "tcp", Path(folder), server_cpu) as target:
                    results[name].append(run(target))
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    host = host_info()
    busy = ", while other programs ran" if load_before > 1 else ""
    lines = [f"{host['kernel']}, {host['processors']}; one connection, medians of {ROUNDS} rounds{busy}.", ""]
    lines += ["| client | Gbit/s | CPU ms/GB |", "| --- | --- | --- |"]
    for name, each in results.items():
        speed, cost = (statistics.median(values) for values in zip(*each, strict=True))
        lines.append(f"| {name} | {speed:.1f} | {cost:.0f} |")
    text = "\n".join(
        [*lines, "", "" if "iperf3" in found else "Not measured: iperf3: not installed."]
    ).rstrip()
    (HERE / "bulk.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
