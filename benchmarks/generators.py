"""The generators side by side: `python -m benchmarks.generators`.

The same server in C, on one processor, is asked by each of them from another: ours in C and in Python, and
wrk where it is installed. wrk speaks only HTTP, so HTTP is what is spoken, and it looks at an answer only as
far as it must to find its end; ours compare every byte. tcpkali speaks anything, but does not wait for
answers nor look at them, and Debian has no package of it: it is named where it is missing, and not run.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bothends.bench.generators.base import RunPlan
from bothends.bench.generators.native import unavailable_reason
from bothends.bench.host_info import host_info, process_usage
from bothends.bench.load import measure, select_generator
from bothends.bench.targets import BenchTarget, RunningTarget, choose_cpus, run_target
from bothends.bench.workload import parse_script

HERE = Path(__file__).resolve().parent
SERVER = BenchTarget("http", (("tcp", ("{program}",)),), source=HERE / "c" / "http.c")
SCRIPT = r"""
> GET / HTTP/1.1\r\nHost: h\r\n\r\n
< HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine
"""
CONNECTIONS, SECONDS, ROUNDS = 50, 2.0, 5

Measured = tuple[float, float, float]
"""Requests a second; the generator's microseconds of processor a request; the server's share of its own."""


def own_generator(name: str) -> Callable[[RunningTarget], Measured]:
    def run(place: RunningTarget) -> Measured:
        plan = RunPlan(
            place.endpoint,
            parse_script(SCRIPT, newline=False),
            connections=CONNECTIONS,
            duration=SECONDS,
            warmup=0.3,
        )
        found = measure(plan, generator=select_generator(name, plan), server_pid=place.pid)
        assert not found.faults.total, found.faults
        share = found.server.cpu_share if found.server is not None else None
        return found.per_s, found.own.cpu_share * 1e6 / found.per_s, share or 0.0

    return run


def external_generator(*words: str) -> Callable[[RunningTarget], Measured]:
    def run(place: RunningTarget) -> Measured:
        assert place.pid is not None
        before, server = resource.getrusage(resource.RUSAGE_CHILDREN), process_usage(place.pid)
        command = [word.format(port=place.endpoint.port) for word in words]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.monotonic() - began
        after, now = resource.getrusage(resource.RUSAGE_CHILDREN), process_usage(place.pid)
        found = re.search(r"(\d+) requests in", done.stdout)
        assert found, done.stdout
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return int(found[1]) / seconds, cpu * 1e6 / int(found[1]), (now.cpu - server.cpu) / seconds

    return run


def candidates() -> tuple[dict[str, Callable[[RunningTarget], Measured]], list[str]]:
    """Those that are here, and who is not."""
    found, absent = {"ours, in Python": own_generator("python")}, []
    if unavailable_reason():
        absent.append(f"ours, in C: {unavailable_reason()}")
    else:
        found["ours, in C"] = own_generator("native")
    if shutil.which("wrk"):
        words = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS:g}s", "http://127.0.0.1:{port}/")
        found["wrk"] = external_generator(*words)
    else:
        absent.append("wrk: not installed")
    absent.append("tcpkali: " + ("it waits for no answers" if shutil.which("tcpkali") else "not installed"))
    return found, absent


def main() -> None:
    found, absent = candidates()
    server_cpu, our_cpu = choose_cpus()
    results: dict[str, list[Measured]] = {name: [] for name in found}
    if our_cpu is not None:
        os.sched_setaffinity(0, {our_cpu})
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            names = list(found)[number % len(found) :] + list(found)[: number % len(found)]
            for name in names:
                with run_target(SERVER, "tcp", Path(folder), server_cpu) as place:
                    results[name].append(found[name](place))
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    here = host_info()
    lines = [
        f"{here['kernel']}, {here['processors']}; {CONNECTIONS} connections, medians of {ROUNDS} rounds.",
        "",
    ]
    lines += ["| generator | requests/s | its us/request | server's share |", "| --- | --- | --- | --- |"]
    for name, each in results.items():
        rate, cost, share = (statistics.median(values) for values in zip(*each, strict=True))
        lines.append(f"| {name} | {rate:,.0f} | {cost:.2f} | {share:.0%} |")
    text = "\n".join([*lines, "", *(f"Not here: {each}." for each in absent), ""])
    (HERE / "generators.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
