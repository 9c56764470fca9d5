"""Compare TLS 1.3 of the native engine with HAProxy before a server in C: `python -m benchmarks.tls`.

HAProxy terminates TLS and passes the bytes on to the epoll server in C, both on the server's CPU, and the
processor time of both counts. Measured with 50 connections, with 16 requests in flight on each, and with a
connection for each request. A generator that is busy limits the rate, so compare processor time. Writes
tls.md. It takes two minutes and needs haproxy and openssl.
"""

from __future__ import annotations

import argparse
import datetime
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bothends.bench.generators.base import RunPlan
from bothends.bench.host_info import host_info
from bothends.bench.load import measure, select_generator
from bothends.bench.results import Round
from bothends.bench.targets import REFERENCE_SERVERS, BenchTarget, choose_cpus, pinned_to_cpu, run_target
from bothends.bench.workload import numbered
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint

HERE = Path(__file__).resolve().parent
BASELINE: Final = "HAProxy and c-epoll"
LOADS: Final = {
    "50 connections": (50, 1, False),
    "50 connections, depth 16": (50, 16, False),
    "one connection per request": (50, 1, True),
}

CONFIGURATION = """
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen tls
    bind 127.0.0.1:{port} ssl crt {certificate} ssl-min-ver TLSv1.3
    server behind 127.0.0.1:{behind}
"""


def make_certificate(folder: Path) -> Path:
    """Make a self-signed certificate. Returns a PEM file with it and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return both


def run_haproxy(program: str, port: str, certificate: str) -> None:
    """Run HAProxy before the server in C, until one of them exits."""
    with subprocess.Popen([program, "tcp"], stdout=subprocess.PIPE, text=True) as behind:
        assert behind.stdout is not None
        found = re.search(r":(\d+)$", behind.stdout.readline().strip())
        assert found, "the server in C has no port"
        file = Path(certificate).with_name(f"haproxy-{port}.cfg")
        text = CONFIGURATION.format(port=port, certificate=certificate, behind=found[1])
        file.write_text(text, encoding="utf-8")
        subprocess.run(["haproxy", "-db", "-q", "-f", str(file)], check=False)


def targets(certificate: Path) -> list[BenchTarget]:
    """Return the servers, which take TLS on the port they are given."""
    missing = "" if shutil.which("haproxy") else "haproxy is not installed"
    haproxy = (sys.executable, "-m", "benchmarks.tls", "--haproxy", "{program}", "{port}", str(certificate))
    found = [
        BenchTarget(
            BASELINE,
            (("tcp", haproxy),),
            unavailable_reason=missing,
            source=REFERENCE_SERVERS / "c_epoll.c",
        )
    ]
    for engine in ("native", "uvloop"):
        serve = (sys.executable, "-m", "bothends", "serve", "-q", f"{HERE / 'upper.py'}:chunk")
        options = ("tls://127.0.0.1:{port}", "--engine", engine, "--tls-cert", str(certificate))
        found.append(BenchTarget(engine, (("tcp", (*serve, *options)),)))
    return found


def measure_load(port: int, pid: int | None, load: str, seconds: float) -> Round:
    """Measure one server under one load."""
    connections, depth, reconnect = LOADS[load]
    plan = RunPlan(
        Endpoint("tls", host="127.0.0.1", port=port),
        numbered(64, "upper", newline=True, depth=depth),
        connections=connections,
        depth=depth,
        duration=seconds,
        warmup=0.3,
        timeout=5.0,
        reconnect=reconnect,
        tls=TlsOptions(verify=False),
    )
    result = measure(plan, generator=select_generator("auto", plan), server_pid=pid)
    if result.faults.total:
        sys.exit(f"{load}: {result.faults}")
    return result


def table(load: str, results: dict[str, list[Round]]) -> list[str]:
    """Return the table of a load: medians, and medians of the ratios within a round."""
    lines = [f"## tls, {load}", "", f"| server | requests/s | server us/request | us to {BASELINE} |"]
    lines.append("| --- | --- | --- | --- |")
    costs = {name: [cost(each) for each in rounds] for name, rounds in results.items()}
    for name, rounds in results.items():
        rate = statistics.median(each.per_s for each in rounds)
        ratio = statistics.median(a / b for a, b in zip(costs[name], costs[BASELINE], strict=True))
        lines.append(f"| {name} | {rate:,.0f} | {statistics.median(costs[name]):.2f} | {ratio:.2f} |")
    return [*lines, ""]


def cost(result: Round) -> float:
    """Return the processor time of a request, in microseconds."""
    assert result.server is not None
    assert result.server.cpu_us_per_request is not None
    return result.server.cpu_us_per_request


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--load", action="append", choices=LOADS)
    parser.add_argument("--haproxy", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.haproxy:
        run_haproxy(*given.haproxy)
        return
    loads = given.load or list(LOADS)
    server_cpu, generator_cpu = choose_cpus()
    order = random.Random(1)
    with tempfile.TemporaryDirectory() as name, pinned_to_cpu(generator_cpu):
        folder = Path(name)
        servers = targets(make_certificate(folder))
        results: dict[str, dict[str, list[Round]]] = {
            load: {server.name: [] for server in servers} for load in loads
        }
        for number in range(given.rounds):
            print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
            for server in order.sample(servers, len(servers)):
                with run_target(server, "tcp", folder, server_cpu) as running:
                    for load in order.sample(loads, len(loads)):
                        port = running.endpoint.port or 0
                        measured = measure_load(port, running.pid, load, given.seconds)
                        results[load][server.name].append(measured)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    host = "; ".join(f"{key} {value}" for key, value in host_info().items())
    version = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout.split()
    lines = [f"`{' '.join(['python -m benchmarks.tls', *sys.argv[1:]])}`", "", f"{now}: {host}."]
    lines += [f"HAProxy {version[2]}; TLS 1.3; medians of {given.rounds} rounds.", ""]
    for load in loads:
        lines += table(load, results[load])
    text = "\n".join(lines)
    if not sys.argv[1:]:
        (HERE / "tls.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
