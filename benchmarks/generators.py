"""Compare load generators: `python -m benchmarks.generators`.

Each generator measures the same HTTP server in C, on different CPUs, and HAProxy over TLS: the two of
bothends, in C and in Python, and wrk if it is installed. wrk supports only HTTP, and parses a response only
to find its end. The generators of bothends compare every byte: as an `http://` target they parse the
responses and compare status and body, and with a script they compare the bytes of head and body. tcpkali
supports any protocol, but does not wait for or check responses, so it is not run.
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
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.tls import make_certificate
from bothends.bench.generators.base import RunPlan
from bothends.bench.generators.native import unavailable_reason
from bothends.bench.host_info import host_info, process_usage
from bothends.bench.http_target import HttpExchange
from bothends.bench.load import measure, select_generator
from bothends.bench.targets import BenchTarget, RunningTarget, choose_cpus, run_target
from bothends.bench.workload import Workload, parse_script
from bothends.client.tls import TlsOptions

HERE = Path(__file__).resolve().parent
SERVER = BenchTarget("http", (("tcp", ("{program}",)),), source=HERE / "c" / "http.c")
SCRIPT = r"""
> GET / HTTP/1.1\r\nHost: h\r\n\r\n
< HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine
"""
HAPROXY = """
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend secure
    bind "127.0.0.1:${PORT}" ssl crt "${CERTIFICATE}" ssl-min-ver TLSv1.3
    http-request return status 200 content-type text/plain string fine
"""
CONNECTIONS, SECONDS, ROUNDS = 50, 1.0, 5

Measured = tuple[float, float, float]
"""Requests per second; the generator's CPU time per request in microseconds; the server's CPU share."""


@dataclass(frozen=True)
class Candidate:
    """A generator, and the server that it measures."""

    server: BenchTarget
    run: Callable[[RunningTarget], Measured]


def secure_server(folder: Path) -> BenchTarget:
    """Return HAProxy, which answers over TLS 1.3 by itself."""
    configuration = folder / "haproxy.cfg"
    configuration.write_text(HAPROXY, encoding="utf-8")
    certificate = make_certificate(folder)
    command = ("env", "PORT={port}", f"CERTIFICATE={certificate}", "haproxy", "-db", "-q", "-f")
    return BenchTarget("https", (("tcp", (*command, str(configuration))),))


def own_generator(name: str, *, http: bool, tls: bool = False) -> Callable[[RunningTarget], Measured]:
    def run(target: RunningTarget) -> Measured:
        script = parse_script(SCRIPT, newline=False)
        endpoint = replace(target.endpoint, scheme="tls") if tls else target.endpoint
        plan = RunPlan(
            endpoint,
            Workload("http", script.requests, (b"",)) if http else script,
            connections=CONNECTIONS,
            duration=SECONDS,
            warmup=0.3,
            http=HttpExchange("http://h/", "GET", frozenset({200}), 4, b"fine") if http else None,
            tls=TlsOptions(verify=False) if tls else None,
        )
        result = measure(plan, generator=select_generator(name, plan), server_pid=target.pid)
        assert not result.faults.total, result.faults
        share = result.server.cpu_share if result.server is not None else None
        return result.per_s, result.own.cpu_share * 1e6 / result.per_s, share or 0.0

    return run


def external_generator(*words: str) -> Callable[[RunningTarget], Measured]:
    def run(target: RunningTarget) -> Measured:
        assert target.pid is not None
        before, server_before = resource.getrusage(resource.RUSAGE_CHILDREN), process_usage(target.pid)
        command = [word.format(port=target.endpoint.port) for word in words]
        started = time.monotonic()
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.monotonic() - started
        after, server_after = resource.getrusage(resource.RUSAGE_CHILDREN), process_usage(target.pid)
        found = re.search(r"(\d+) requests in", result.stdout)
        assert found, result.stdout
        requests = int(found[1])
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return requests / seconds, cpu * 1e6 / requests, (server_after.cpu - server_before.cpu) / seconds

    return run


def candidates(folder: Path) -> tuple[dict[str, Candidate], list[str]]:
    """Return the available generators, and the others with the reason."""
    names, absent = {"python": "Python", "native": "C"}, []
    if unavailable_reason():
        absent.append(f"bothends, in C: {unavailable_reason()}")
        del names["native"]
    found: dict[str, Candidate] = {}
    for each, language in names.items():
        found[f"bothends, in {language}, http://"] = Candidate(SERVER, own_generator(each, http=True))
        found[f"bothends, in {language}, script"] = Candidate(SERVER, own_generator(each, http=False))
    wrk = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS:g}s")
    if shutil.which("wrk"):
        found["wrk, http://"] = Candidate(SERVER, external_generator(*wrk, "http://127.0.0.1:{port}/"))
    if shutil.which("haproxy"):
        secure = secure_server(folder)
        for each, language in names.items():
            run = own_generator(each, http=True, tls=True)
            found[f"bothends, in {language}, https://"] = Candidate(secure, run)
        if shutil.which("wrk"):
            found["wrk, https://"] = Candidate(secure, external_generator(*wrk, "https://127.0.0.1:{port}/"))
    else:
        absent.append("https://: haproxy is not installed")
    if not shutil.which("wrk"):
        absent.append("wrk: not installed")
    absent.append("tcpkali: " + ("does not check responses" if shutil.which("tcpkali") else "not installed"))
    return found, absent


def main() -> None:
    load_before = os.getloadavg()[0]
    server_cpu, generator_cpu = choose_cpus()
    if generator_cpu is not None:
        os.sched_setaffinity(0, {generator_cpu})
    with tempfile.TemporaryDirectory() as folder:
        found, absent = candidates(Path(folder))
        results: dict[str, list[Measured]] = {name: [] for name in found}
        for number in range(ROUNDS):
            names = list(found)[number % len(found) :] + list(found)[: number % len(found)]
            for name in names:
                with run_target(found[name].server, "tcp", Path(folder), server_cpu) as target:
                    results[name].append(found[name].run(target))
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    host = host_info()
    busy = ", while other programs ran" if load_before > 1 else ""
    setting = f"{CONNECTIONS} connections, medians of {ROUNDS} rounds of {SECONDS:g} s{busy}"
    lines = [f"{host['kernel']}, {host['processors']}; {setting}.", ""]
    lines += ["| generator | requests/s | CPU us/request | server's CPU share |", "| --- | --- | --- | --- |"]
    for name, each in results.items():
        rate, cost, share = (statistics.median(values) for values in zip(*each, strict=True))
        lines.append(f"| {name} | {rate:,.0f} | {cost:.2f} | {share:.0%} |")
    text = "\n".join([*lines, "", *(f"Not measured: {each}." for each in absent), ""])
    (HERE / "generators.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
