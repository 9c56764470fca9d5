"""impair beside socat and HAProxy, and how exact its delays are: `python -m benchmarks.impair`.

A C server on epoll stands behind each proxy, and a C generator on io_uring asks (benchmarks/c); bulk data is
sent from here and counted where it arrives. The proxy runs on one processor, everything else on the other.
Each round measures every proxy once on every workload, in an order that changes; what counts is the median
over rounds of the ratio to socat in the same round. HAProxy is in TCP mode, with one thread.
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
from collections.abc import Iterator
from pathlib import Path

from benchmarks.programs import NICE, compiled

PROXY_CPU, OTHER_CPU = 0, 1
SO_TIMESTAMPNS = 35  # asm-generic/socket.h
IMPAIR = [sys.executable, "-m", "bothends", "impair", "--no-api", "--quiet"]
WORKLOADS = {
    "lines, 1 connection": "talk {} {} 1",
    "lines, 50 connections": "talk {} {} 50",
    "lines, 1,000 connections": "talk {} {} 1000",
    "MB/s, 1 connection": "1",
    "MB/s, 1,000 connections": "1000",
}
PROXIES = ("socat", "haproxy", "impair", "impair, latency 1 ms")
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


def command_of(name: str, port: int, server: int, where: Path) -> list[str]:
    """A proxy from a port to another."""
    if name == "socat":
        listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,backlog=4096,nodelay"
        return ["socat", listen, f"TCP:127.0.0.1:{server},nodelay"]
    if name == "haproxy":
        file = where / f"{port}.cfg"
        file.write_text(HAPROXY.format(port, server))
        return ["haproxy", "-q", "-db", "-f", str(file)]
    toxics = ["--latency", "1ms"] if "latency" in name else []
    return [*IMPAIR, f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{server}", *toxics]


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], processor: int, port: int) -> Iterator[None]:
    process = subprocess.Popen([*NICE, "taskset", "-c", str(processor), *command], start_new_session=True)
    try:
        until = time.monotonic() + 10
        while port:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if time.monotonic() > until:
                raise SystemExit(f"{command[0]} does not come up")
            time.sleep(0.01)
        yield
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def talked(words: str, port: int, seconds: float, programs: Path) -> float:
    """Lines a second, each answered and compared."""
    command = [str(programs / "generator"), *words.format(port, seconds).split()]
    done = subprocess.run(
        [*NICE, "taskset", "-c", str(OTHER_CPU), *command], capture_output=True, text=True, check=True
    )
    answers, took, _lost = done.stdout.split()
    return int(answers) / float(took)


def carried(port: int, connections: int, seconds: float) -> float:
    """Megabytes a second that a proxy takes to a server that throws them away."""
    data = memoryview(bytes(256 * 1024))
    poll = select.epoll()
    clients = {}
    with contextlib.ExitStack() as stack:
        for _ in range(connections):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            client.setblocking(False)
            clients[client.fileno()] = client
            poll.register(client, select.EPOLLOUT)
        sent, began = 0, time.monotonic()
        while (took := time.monotonic() - began) < seconds:
            for descriptor, _ in poll.poll(0.1):
                with contextlib.suppress(BlockingIOError):
                    sent += clients[descriptor].send(data)
    return sent / took / 1e6


def throw_away(listener: socket.socket) -> None:
    """A server that reads and forgets; in a process of its own."""
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    here: dict[int, socket.socket] = {}
    buffer = bytearray(1024 * 1024)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                here[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
                continue
            count = 0
            with contextlib.suppress(OSError):
                count = here[descriptor].recv_into(buffer)
            if not count:
                poll.unregister(descriptor)
                here.pop(descriptor).close()


def measure(name: str, workload: str, seconds: float, programs: Path) -> float:
    words = WORKLOADS[workload]
    port = free_port()
    with contextlib.ExitStack() as stack:
        if words.isdecimal():
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
            server = listener.getsockname()[1]
            sink = multiprocessing.Process(target=throw_away, args=(listener,), daemon=True)
            sink.start()
            stack.callback(sink.kill)
        else:
            server = free_port()
            epoll_server = [str(programs / "epoll_server"), "tcp", str(server)]
            stack.enter_context(running(epoll_server, OTHER_CPU, server))
        stack.enter_context(running(command_of(name, port, server, programs), PROXY_CPU, port))
        if words.isdecimal():
            return carried(port, int(words), seconds)
        return talked(words, port, seconds, programs)


def datagrams(seconds: float, programs: Path) -> float:
    """Questions and answers a second over UDP, 50 outstanding: twice as many datagrams pass the proxy."""
    server, port = (free_port(socket.SOCK_DGRAM) for _ in range(2))
    with contextlib.ExitStack() as stack:
        stack.enter_context(running([str(programs / "epoll_server"), "udp", str(server)], OTHER_CPU, 0))
        command = [*IMPAIR, f"udp://127.0.0.1:{port}", f"udp://127.0.0.1:{server}"]
        stack.enter_context(running(command, PROXY_CPU, 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.1)
            probe.connect(("127.0.0.1", port))
            for _ in range(100):
                with contextlib.suppress(OSError):
                    probe.send(b"up?")
                    if probe.recv(10):
                        break
                time.sleep(0.05)
        return talked("udp {} {} 50", port, seconds, programs)


def delay_errors(rate: int, seconds: float) -> list[float]:
    """Of datagrams at a rate through a latency of 10 ms: how many milliseconds more than 10 each took.

    The kernel notes when each arrived (SO_TIMESTAMPNS), so that how soon it is read here doesn't count.
    """
    count = int(rate * seconds)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as arrival, contextlib.ExitStack() as stack:
        arrival.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        arrival.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        arrival.bind(("127.0.0.1", 0))
        arrival.settimeout(2)
        port = free_port(socket.SOCK_DGRAM)
        server = f"udp://127.0.0.1:{arrival.getsockname()[1]}"
        command = [*IMPAIR, f"udp://127.0.0.1:{port}", server, "--latency", "up:10ms"]
        stack.enter_context(running(command, PROXY_CPU, 0))
        wait_until_passing(port, arrival)
        sender = multiprocessing.Process(target=send_evenly, args=(port, rate, count), daemon=True)
        sender.start()
        errors = []
        with contextlib.suppress(TimeoutError):  # on a busy machine the kernel drops some before the proxy
            for _ in range(count):
                data, [(_, _, stamp)], _, _ = arrival.recvmsg(100, socket.CMSG_SPACE(16))
                whole, nanoseconds = struct.unpack("ll", stamp)
                sent = struct.unpack("q", data[:8])[0]
                errors.append((whole * 10**9 + nanoseconds - sent) / 1e6 - 10)
        sender.join()
    return errors


def wait_until_passing(port: int, arrival: socket.socket) -> None:
    """Send until something arrives, and then let all of that arrive."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        arrival.settimeout(0.05)
        for _ in range(200):
            with contextlib.suppress(OSError):
                client.send(b"up?")
                if arrival.recv(10):
                    break
        with contextlib.suppress(TimeoutError):
            while True:
                arrival.recv(10)
    arrival.settimeout(2)


def send_evenly(port: int, rate: int, count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        began = time.monotonic()
        for number in range(count):
            while time.monotonic() < began + number / rate:
                pass
            client.send(struct.pack("q", time.time_ns()) + bytes(56))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.impair", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--workload", default="", help="workloads, by a part of their names, comma-separated")
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    workloads = [each for each in WORKLOADS if any(part in each for part in asked.workload.split(","))]
    found: dict[tuple[str, str], list[float]] = {}
    shuffle = random.Random(1)
    with tempfile.TemporaryDirectory() as where:
        compiled(Path(where))
        for _ in range(asked.rounds):
            for workload in workloads:
                for name in shuffle.sample(PROXIES, len(PROXIES)):
                    result = measure(name, workload, asked.seconds, Path(where))
                    found.setdefault((workload, name), []).append(result)
        pairs = [datagrams(asked.seconds, Path(where)) for _ in range(asked.rounds)]
    print("| workload | proxy | a second | to socat |")
    print("|---|---|---|---|")
    for (workload, name), own in found.items():
        ratio = statistics.median(mine / his for mine, his in zip(own, found[workload, "socat"], strict=True))
        print(f"| {workload} | {name} | {statistics.median(own):,.0f} | {ratio:.2f} |")
    print(f"\nUDP, 50 outstanding: {2 * statistics.median(pairs):,.0f} datagrams a second through impair")
    errors = sorted(delay_errors(10_000, asked.seconds * asked.rounds))
    median, high = (errors[int(len(errors) * share)] for share in (0.5, 0.99))
    print(
        f"latency of 10 ms at 10,000 messages a second: {median:.3f} ms late in the median, {high:.3f} at p99"
    )


if __name__ == "__main__":
    main()
