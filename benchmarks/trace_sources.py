"""What the sources of calls of `bothends trace` cost: python -m benchmarks.trace_sources [ROUNDS] [SECONDS].

Two measurements, interleaved in rounds, of which the median is printed:

1. The rate of an echo server with 10 connections: untraced, and traced with its payload by strace and by
   eBPF, with the client untraced; and the server's processor time for a request.
2. 20,000 round trips of one connection, traced and saved, to strace alone writing a file: wall clock, and
   processor time with that of the programs.
"""

from __future__ import annotations

import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

from bothends.trace.capture.strace import OPTIONS

SOURCE: Final = Path(__file__).parent / "c" / "echo_rate.c"
CONNECTIONS: Final = 10
ROUND_TRIPS: Final = 20_000
TRACE: Final = [sys.executable, "-m", "bothends", "trace"]
CALLS_ONLY: Final = [*TRACE, "--calls-only"]


def rate(program: Path, before: list[str], seconds: float) -> tuple[float, float]:
    """Return the requests per second of the server, and its processor time for a request in microseconds."""
    with subprocess.Popen(
        [*before, str(program), "server"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = next(line for line in server.stdout if line.strip().isdigit()).strip()
        client = subprocess.run(
            [str(program), "client", port, str(CONNECTIONS), str(seconds)],
            capture_output=True,
            text=True,
            check=True,
        )
        _, errors = server.communicate()
    found = re.search(r"processor ([\d.]+) us", errors)
    assert found, errors
    return float(client.stdout), float(found[1])


def save_time(program: Path, trace: list[str], folder: Path) -> tuple[float, float]:
    """Run 20,000 round trips. Returns the wall clock, and the processor time of all, in seconds."""
    script = (
        f"exec 3< <(exec {program} server 2>/dev/null); read port <&3; "
        f"exec {program} client $port 1 -{ROUND_TRIPS} >/dev/null"
    )
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [*trace, "bash", "-c", script],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        cwd=folder,
    )
    taken, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: int = 5, seconds: float = 0.5) -> None:
    """Measure, and print the medians."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = folder / "echo_rate"
        subprocess.run(["cc", "-O2", "-o", str(program), str(SOURCE)], check=True)
        strace = [shutil.which("strace") or "strace", *OPTIONS, "--seccomp-bpf", "-o", str(folder / "log")]
        saving = ["--save", str(folder / "saved.trace")]
        ways = {
            "untraced": [],
            "strace alone": [*strace, "--"],
            "trace --with strace": [*CALLS_ONLY, "--with", "strace", *saving, "--"],
            "trace --with bpf": [*CALLS_ONLY, "--with", "bpf", *saving, "--"],
        }
        with_packets = {
            "strace, and packets": [*TRACE, "--with", "strace", *saving, "--"],
            "bpf, and packets": [*TRACE, "--with", "bpf", *saving, "--"],
        }
        rates: dict[str, list[float]] = defaultdict(list)
        costs: dict[str, list[float]] = defaultdict(list)
        times: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for _ in range(rounds):
            for way, command in ways.items():
                found, cost = rate(program, command, seconds)
                rates[way].append(found)
                costs[way].append(cost)
        for _ in range(max(rounds // 2, 1)):
            for way, command in {**ways, **with_packets}.items():
                if command:
                    times[way].append(save_time(program, command, folder))
    base = statistics.median(rates["untraced"])
    print(f"echo server, {CONNECTIONS} connections, {rounds} rounds of {seconds} s; medians")
    for way, values in rates.items():
        median = statistics.median(values)
        cost = statistics.median(costs[way])
        print(
            f"  {way:20} {median:8,.0f}/s  {median / base:4.2f} of untraced  {cost:6.2f} us of processor time"
        )
    alone = [statistics.median(each) for each in zip(*times["strace alone"], strict=True)]
    print(f"{ROUND_TRIPS:,} round trips of one connection, both ends traced and saved; medians")
    for way, pairs in times.items():
        wall, processor = (statistics.median(each) for each in zip(*pairs, strict=True))
        print(
            f"  {way:20} {wall:6.2f} s  {wall / alone[0]:5.2f} of strace alone;  "
            f"processor time {processor:6.2f} s  {processor / alone[1]:5.2f}"
        )


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((int, float), sys.argv[1:], strict=False)))
