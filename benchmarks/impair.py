"""Compare impair with socat and HAProxy, and measure the accuracy of its delays.

Run: `python -m benchmarks.impair`. Each proxy forwards to an epoll server in C, measured by the generator of
`bothends bench`. Bulk data is sent by this program and counted at the receiver. The proxy runs on one CPU,
everything else on the other. Each round measures every proxy once under every load, in an order that changes.
Results are the median over rounds of the ratio to another proxy in the same round, and the proxy's CPU time
per line, megabyte or datagram, which a busy machine disturbs least. HAProxy runs in TCP mode with one thread.
Without arguments it writes impair.md, in less than three minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import resource
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Literal

from benchmarks.priority import NICE, raise_priority
from bothends.bench import load as bench
from bothends.bench import targets
from bothends.bench.generators.base import RunPlan
from bothends.bench.host_info import host_info, process_usage
from bothends.bench.workload import numbered
from bothends.endpoints import Endpoint
from bothends.sockets.free_port import free_port

HERE = Path(__file__).resolve().parent
PROXY_CPU, OTHER_CPU = 0, 1
SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33  # asm-generic/socket.h
IMPAIR = [sys.executable, "-m", "bothends", "impair", "--no-api", "--quiet"]
LATENCY, RATE = 10, 10_000  # milliseconds, messages per second
FILL_SECONDS = 0.3  # seconds for the kernel's buffers to fill before arriving bytes are counted
HAPROXY = """\
global
  maxconn 5000
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen proxy
  bind 127.0.0.1:{}
  server server 127.0.0.1:{}
"""


@dataclass(frozen=True)
class Load:
    """Traffic through the proxies, counted in `unit`s."""

    name: str
    unit: Literal["line", "MB", "datagram"]
    clients: int
    proxies: tuple[str, ...] = ("socat", "HAProxy", "impair", "impair, latency 1 ms")

    @property
    def transport(self) -> str:
        return "udp" if self.unit == "datagram" else "tcp"


DATAGRAMS = ("impair", "impair, latency 1 ms")
LOADS = (
    Load("lines of 64 bytes, 1 connection", "line", 1),
    Load("lines of 64 bytes, 50 connections", "line", 50),
    Load("lines of 64 bytes, 1,000 connections", "line", 1000),
    Load("bulk, 1 connection", "MB", 1),
    Load("bulk, 1,000 connections", "MB", 1000),
    Load("datagrams of 64 bytes, 1 client, 50 outstanding", "datagram", 1, ("socat", *DATAGRAMS)),
    Load("datagrams of 64 bytes, 1,000 clients, 1 outstanding each", "datagram", 1000, DATAGRAMS),
)


@dataclass(frozen=True)
class Measured:
    """One measurement: units per second, and the proxy's CPU time per unit in microseconds."""

    per_s: float
    cost: float


def command_of(name: str, load: Load, port: int, server: int, folder: Path) -> list[str]:
    """Return the command of a proxy from `port` to the port `server`."""
    if name == "socat" and load.transport == "udp":
        return ["socat", f"UDP4-LISTEN:{port},bind=127.0.0.1,fork", f"UDP4:127.0.0.1:{server}"]
    if name == "socat":
        listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,backlog=4096,nodelay"
        return ["socat", listen, f"TCP:127.0.0.1:{server},nodelay"]
    if name == "HAProxy":
        file = folder / f"{port}.cfg"
        file.write_text(HAPROXY.format(port, server))
        return ["haproxy", "-q", "-db", "-f", str(file)]
    toxics = ["--latency", "1ms"] if "latency" in name else []
    ends = [f"{load.transport}://127.0.0.1:{each}" for each in (port, server)]
    return [*IMPAIR, *ends, *toxics]


@contextlib.contextmanager
def running(command: list[str], cpu: int, is_up: Callable[[], bool]) -> Iterator[int]:
    """Run a command on a CPU. Yields its process id once it is up."""
    process = subprocess.Popen([*NICE, "taskset", "-c", str(cpu), *command], start_new_session=True)
    try:
        deadline = time.monotonic() + 10
        while not is_up():
            if time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not start within 10 s")
            time.sleep(0.01)
        yield process.pid
    finally:
        os.killpg(process.pid, 9)
        process.wait()


@contextlib.contextmanager
def prioritized() -> Iterator[None]:
    """Run on the other CPU, with real-time priority if permitted."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {OTHER_CPU})
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, before)


def tcp_probe(port: int) -> Callable[[], bool]:
    def is_up() -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    return is_up


def udp_probe(port: int) -> Callable[[], bool]:
    def is_up() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.settimeout(0.1)
            probe.connect(("127.0.0.1", port))
            probe.send(b"up?")
            return bool(probe.recv(10))
        return False

    return is_up


def server() -> targets.BenchTarget:
    """Return the epoll server in C, run with real-time priority if permitted."""
    target = next(each for each in targets.reference_servers() if each.name == "c-epoll")
    return replace(target, commands=tuple((each, (*NICE, *words)) for each, words in target.commands))


def measure_requests(load: Load, port: int, depth: int, seconds: float, proxy: int) -> Measured:
    """Measure lines or datagrams, with a compared response to each."""
    endpoint = Endpoint(load.transport, host="127.0.0.1", port=port)
    workload = numbered(64, "upper", newline=load.transport == "tcp", depth=depth)
    warmup = 0.1 + load.clients / 1000  # seconds: socat forks a process per connection
    plan = RunPlan(endpoint, workload, load.clients, depth, duration=seconds, warmup=warmup)
    with prioritized():
        result = bench.measure(plan, server_pid=proxy)
    assert result.server is not None
    assert result.server.cpu_us_per_request is not None
    return Measured(result.per_s, result.server.cpu_us_per_request)


def send_bulk(
    load: Load, port: int, proxy: int, seconds: float, arrived: Synchronized[int], result_pipe: Connection
) -> None:
    """Send through a proxy to a discard server; runs in its own process.

    Sends the MB/s (once the buffers are full) and the proxy's CPU time in seconds to `result_pipe`.
    """
    raise_priority()
    os.sched_setaffinity(0, {OTHER_CPU})
    data = memoryview(bytes(256 * 1024))
    poll = select.epoll()
    clients = {}
    with contextlib.ExitStack() as stack:
        for _ in range(load.clients):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            client.setblocking(False)
            clients[client.fileno()] = client
            poll.register(client, select.EPOLLOUT)

        def send_for(seconds: float) -> float:
            before, started = arrived.value, time.monotonic()
            while (took := time.monotonic() - started) < seconds:
                for descriptor, _ in poll.poll(0.1):
                    with contextlib.suppress(BlockingIOError):
                        clients[descriptor].send(data)
            return (arrived.value - before) / took / 1e6

        send_for(FILL_SECONDS)
        before = process_usage(proxy).cpu
        result_pipe.send((send_for(seconds), process_usage(proxy).cpu - before))


def discard_server(listener: socket.socket, arrived: Synchronized[int]) -> None:
    """Read, count and discard input; runs in its own process."""
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    buffer = bytearray(1024 * 1024)
    raise_priority()
    os.sched_setaffinity(0, {OTHER_CPU})
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                connections[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
                continue
            count = 0
            with contextlib.suppress(OSError):
                count = connections[descriptor].recv_into(buffer)
            arrived.value += count
            if not count:
                poll.unregister(descriptor)
                connections.pop(descriptor).close()


@contextlib.contextmanager
def udp_clients(port: int, count: int) -> Iterator[dict[int, socket.socket]]:
    """Open `count` UDP clients that have received one response each. Yields descriptor -> socket."""
    with contextlib.ExitStack() as stack:
        clients = {}
        for _ in range(count):
            client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            client.connect(("127.0.0.1", port))
            client.settimeout(1)
            client.send(b"first")
            client.recv(100)
            client.setblocking(False)
            clients[client.fileno()] = client
        yield clients


def measure_datagrams(clients: dict[int, socket.socket], seconds: float) -> float:
    """Return datagrams per second to and from a proxy; each client has one request in flight."""
    request = bytes(64)
    poll = select.epoll()
    for client in clients.values():
        poll.register(client, select.EPOLLIN)
        client.send(request)
    count, started = 0, time.monotonic()
    while (took := time.monotonic() - started) < seconds:
        ready = poll.poll(0.02)
        for descriptor, _ in ready:
            with contextlib.suppress(OSError):
                count += bool(clients[descriptor].recv(100))
                count += bool(clients[descriptor].send(request))
        if not ready:  # all datagrams in flight were lost: a socket buffer overflowed
            for client in clients.values():
                client.send(request)
    return count / took


def measure(name: str, load: Load, seconds: float, folder: Path) -> Measured:
    arrived = multiprocessing.Value("Q", 0)
    with contextlib.ExitStack() as stack:
        port, server_port = free_port(), free_port()
        is_up = udp_probe if load.transport == "udp" else tcp_probe
        if load.unit == "MB":
            listener = stack.enter_context(socket.create_server(("127.0.0.1", server_port), backlog=4096))
            sink = multiprocessing.Process(target=discard_server, args=(listener, arrived), daemon=True)
            sink.start()
            stack.callback(sink.kill)
        else:
            target = stack.enter_context(targets.run_target(server(), load.transport, folder, OTHER_CPU))
            server_port = target.endpoint.port or 0
        command = command_of(name, load, port, server_port, folder)
        proxy = stack.enter_context(running(command, PROXY_CPU, is_up(port)))
        clients: dict[int, socket.socket] = {}
        if load.transport == "udp" and load.clients > 1:
            clients = stack.enter_context(udp_clients(port, load.clients))
        if load.unit == "MB":
            receiver, sender = multiprocessing.Pipe(duplex=False)
            arguments = (load, port, proxy, seconds, arrived, sender)
            multiprocessing.Process(target=send_bulk, args=arguments, daemon=True).start()
            sender.close()
            per_s, cpu = receiver.recv()
            return Measured(per_s, cpu * 1e6 / (per_s * seconds))
        if load.unit == "line":
            return measure_requests(load, port, 1, seconds, proxy)
        if load.clients == 1:
            exchanges = measure_requests(load, port, 50, seconds, proxy)
            return Measured(exchanges.per_s * 2, exchanges.cost / 2)  # a request and a response
        before = process_usage(proxy).cpu
        with prioritized():
            per_s = measure_datagrams(clients, seconds)
        return Measured(per_s, (process_usage(proxy).cpu - before) * 1e6 / (per_s * seconds))


def delay_errors(seconds: float) -> list[float]:
    """Send datagrams through a latency. Returns the sorted excess delays in milliseconds.

    Arrival times are the kernel's (SO_TIMESTAMPNS), so that the time until the read does not count.
    """
    count = int(RATE * seconds)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as arrival, contextlib.ExitStack() as stack:
        arrival.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        with contextlib.suppress(PermissionError):
            arrival.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 * 2**20)
        arrival.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        arrival.bind(("127.0.0.1", 0))
        port = free_port()
        server = f"udp://127.0.0.1:{arrival.getsockname()[1]}"
        command = [*IMPAIR, f"udp://127.0.0.1:{port}", server, "--latency", f"up:{LATENCY}ms"]
        stack.enter_context(running(command, PROXY_CPU, lambda: is_forwarding(port, arrival)))
        arrival.settimeout(2)
        sender = multiprocessing.Process(target=send_evenly, args=(port, count), daemon=True)
        sender.start()
        errors = []
        with contextlib.suppress(TimeoutError):  # on a busy machine some are dropped before the proxy
            for _ in range(count):
                data, [(_, _, stamp)], _, _ = arrival.recvmsg(100, socket.CMSG_SPACE(16))
                whole, nanoseconds = struct.unpack("ll", stamp)
                sent = struct.unpack("q", data[:8])[0]
                errors.append((whole * 10**9 + nanoseconds - sent) / 1e6 - LATENCY)
        sender.join()
    return sorted(errors)


def is_forwarding(port: int, arrival: socket.socket) -> bool:
    """Whether a datagram sent to a port arrives. Drains the arrival socket."""
    arrival.settimeout(0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
        client.connect(("127.0.0.1", port))
        client.send(b"up?")
        arrival.recv(10)
        with contextlib.suppress(TimeoutError):
            while True:
                arrival.recv(10)
        return True
    return False


def send_evenly(port: int, count: int) -> None:
    """Send timestamped datagrams at RATE, without bursts to catch up after a delay."""
    with prioritized(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        due = time.monotonic()
        for _ in range(count):
            now = time.monotonic()
            if now < due:
                time.sleep(due - now)
            due = max(due, now - 0.001) + 1 / RATE
            client.send(struct.pack("q", time.time_ns()) + bytes(56))


def ratio_to(other: str, own: list[Measured], found: dict[str, list[Measured]]) -> str:
    """Format the median ratio to another proxy in the same round."""
    if other not in found:
        return "-"
    ratios = (one.per_s / base.per_s for one, base in zip(own, found[other], strict=True))
    return f"{statistics.median(ratios):.2f}"


def table(found: dict[Load, dict[str, list[Measured]]]) -> list[str]:
    lines = []
    for load, measured in found.items():
        plural = load.unit if load.unit == "MB" else f"{load.unit}s"
        lines += [f"## {load.name}", ""]
        lines += [f"| proxy | {plural}/s | to socat | to HAProxy | CPU us/{load.unit} |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for name, own in sorted(measured.items(), key=lambda each: load.proxies.index(each[0])):
            per_s, cost = (statistics.median(values) for values in zip(*map(astuple, own), strict=True))
            ratios = f"{ratio_to('socat', own, measured)} | {ratio_to('HAProxy', own, measured)}"
            lines.append(f"| {name} | {per_s:,.0f} | {ratios} | {cost:,.2f} |")
        lines.append("")
    return lines


def lateness(rounds: list[list[float]]) -> list[str]:
    """Format the percentiles of the excess delays of each round."""
    shares = {"median": 0.5, "p99": 0.99, "p99.9": 0.999}
    lines = [f"## Latency of {LATENCY} ms, {RATE:,} datagrams/s: excess delay in ms", ""]
    lines += [f"| round | {' | '.join(shares)} | arrived |", f"| --- {'| --- ' * len(shares)}| --- |"]
    for number, errors in enumerate(rounds, 1):
        figures = (f"{errors[int(len(errors) * share)]:.3f}" for share in shares.values())
        lines.append(f"| {number} | {' | '.join(figures)} | {len(errors):,} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.impair", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument("--only", default="", help="loads whose name contains this")
    arguments = parser.parse_args()
    rounds, seconds = arguments.rounds, arguments.seconds
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    found: dict[Load, dict[str, list[Measured]]] = {}
    shuffle = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for load in LOADS:
                if arguments.only in load.name:
                    for name in shuffle.sample(load.proxies, len(load.proxies)):
                        result = measure(name, load, seconds, Path(folder))
                        found.setdefault(load, {}).setdefault(name, []).append(result)
    late = [delay_errors(2 * seconds) for _ in range(rounds)]
    host = host_info()
    lines = [
        "# impair, socat and HAProxy",
        "",
        f"`python -m benchmarks.impair`: {host['kernel']}, {host['processors']}, {host['python']};",
        f"medians of {rounds} rounds of {seconds:g} s, load average {host['load average']} at the end.",
        "",
        *table(found),
        *lateness(late),
    ]
    text = "\n".join([*lines, ""])
    if not sys.argv[1:]:
        (HERE / "impair.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
