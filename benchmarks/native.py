"""The native engine beside a C epoll server and uvloop's Protocol: `python -m benchmarks.native`.

Both C programs in benchmarks/c are compiled on the spot. The server runs on one processor and the generator
on another. Each round measures every server once on every workload, in an order that changes, and what
counts is the median over rounds of the ratio to the C epoll server in the same round; beside it the ratio of
the server's processor time a request, which says more where the generator is the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVER_CPU, GENERATOR_CPU = 0, 1

# Ahead of whatever else the machine does, where we may be.
NICE = ["chrt", "-f", "10"] if os.geteuid() == 0 else []

WORKLOADS = {
    "1 connection": "talk {} {} 1",
    "50 connections": "talk {} {} 50",
    "1,000 connections": "talk {} {} 1000",
    "50 connections, depth 16": "talk {} {} 50 16",
    "connect, ask, close, 50 at a time": "call {} {} 50",
    "UDP, 50 outstanding": "udp {} {} 50",
}

SERVERS = {
    "C epoll": "",
    "native, io_uring": "native chunk bothends.engines.native:NativeOnRing",
    "native, epoll": "native chunk bothends.engines.native:NativeOnEpoll",
    "native, a line": "native line bothends.engines.native:NativeEngine",
    "native, busy": "native chunk bothends.engines.native:NativeEngine busy",
    "uvloop Protocol": "uvloop",
    "engine epoll": "native chunk epoll",
    "engine uvloop": "native chunk uvloop",
}


def serve(words: list[str]) -> None:
    """One Python server on a port; in a process of its own."""
    if words[0] == "uvloop":
        serve_uvloop(int(words[-1]))
        return
    from bothends import datagram, message, stream
    from bothends.engines.base import Limits
    from bothends.server import Server

    kind, engine, *busy = words[1:-1]
    chunk, line, packet = stream(bytes.upper), message(bytes.upper), datagram(bytes.upper)
    port = int(words[-1])
    limits = Limits(busy_poll=50e-6 if busy else 0.0)
    if os.environ.get("BENCH_UDP"):
        Server(packet, [f"udp://127.0.0.1:{port}"], engine=engine, limits=limits).run()
    Server(line if kind == "line" else chunk, [f"tcp://127.0.0.1:{port}"], engine=engine, limits=limits).run()


def serve_uvloop(port: int) -> None:
    import asyncio

    import uvloop

    class Upper(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data.upper())  # type: ignore[attr-defined]

    class Packets(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(data.upper(), addr)  # type: ignore[attr-defined]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if os.environ.get("BENCH_UDP"):
            await loop.create_datagram_endpoint(Packets, local_addr=("127.0.0.1", port))
        else:
            await loop.create_server(Upper, "127.0.0.1", port, backlog=4096)
        await asyncio.Event().wait()

    uvloop.run(main())


@contextlib.contextmanager
def running(name: str, programs: Path, udp: bool) -> Iterator[tuple[int, int]]:
    """A server on the first processor: its process and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if SERVERS[name]:
        command = [sys.executable, "-m", "benchmarks.native", "--serve", f"{SERVERS[name]} {port}"]
    else:
        command = [str(programs / "epoll_server"), "udp" if udp else "tcp", str(port)]
    environment = os.environ | ({"BENCH_UDP": "1"} if udp else {})
    server = subprocess.Popen([*NICE, "taskset", "-c", str(SERVER_CPU), *command], env=environment)
    try:
        wait_until_up(port, udp)
        yield server.pid, port
    finally:
        server.kill()
        server.wait()


def wait_until_up(port: int, udp: bool) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as probe:
            probe.settimeout(0.2)
            with contextlib.suppress(OSError):
                probe.connect(("127.0.0.1", port))
                probe.send(b"up?\n")
                if probe.recv(10):
                    return
        time.sleep(0.01)
    raise SystemExit("the server does not come up")


def cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def measure(name: str, workload: str, seconds: float, programs: Path) -> tuple[float, float]:
    """Answers a second, and microseconds of the server's time for one."""
    udp = workload.startswith("UDP")
    with running(name, programs, udp) as (pid, port):
        words = WORKLOADS[workload].format(port, seconds).split()
        before = cpu_seconds(pid)
        done = subprocess.run(
            [*NICE, "taskset", "-c", str(GENERATOR_CPU), str(programs / "generator"), *words],
            capture_output=True,
            text=True,
            check=True,
        )
        used = cpu_seconds(pid) - before
    answers, took, _lost = done.stdout.split()
    return int(answers) / float(took), used / int(answers) * 1e6


def compiled(programs: Path) -> None:
    for name, more in (("epoll_server", []), ("generator", [str(HERE.parent / "native" / "ring.c"), "-lm"])):
        source = str(HERE / "c" / f"{name}.c")
        subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", str(programs / name), source, *more], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.native", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", default="", help="servers, by a part of their names, comma-separated")
    parser.add_argument("--workload", default="", help="workloads, likewise")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve.split())
        return
    names = [
        each for each in SERVERS if each == "C epoll" or any(part in each for part in asked.only.split(","))
    ]
    workloads = [each for each in WORKLOADS if any(part in each for part in asked.workload.split(","))]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as where:
        compiled(Path(where))
        shuffle = random.Random(1)
        for _ in range(asked.rounds):
            for workload in workloads:
                for name in shuffle.sample(names, len(names)):
                    result = measure(name, workload, asked.seconds, Path(where))
                    found.setdefault((workload, name), []).append(result)
    print("| workload | server | requests/s | to C epoll | server us | to C epoll |")
    print("|---|---|---|---|---|---|")
    for workload in workloads:
        base = found[workload, "C epoll"]
        for name in names:
            own = found[workload, name]
            rate, cost = (statistics.median(each[at] for each in own) for at in (0, 1))
            by_rate, by_cost = (
                statistics.median(mine[at] / his[at] for mine, his in zip(own, base, strict=True))
                for at in (0, 1)
            )
            print(f"| {workload} | {name} | {rate:,.0f} | {by_rate:.2f} | {cost:.2f} | {by_cost:.2f} |")


if __name__ == "__main__":
    main()
