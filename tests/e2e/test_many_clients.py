"""Many clients: stalled handshakes, peers that do not read, and 200,000 short connections."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothends.client.faults import connect_without_reading
from bothends.endpoints import Endpoint
from bothends.engines import registry
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STALLED = 1_000
NOT_READING = 1_000
CONNECTIONS = 200_000
CLIENTS = 4
TIMEOUT = 30.0


@contextlib.contextmanager
def serving(engine: str, *arguments: str) -> Iterator[tuple[Running, list[int]]]:
    """Run `bothends serve`. Yields the process and the ports of its endpoints."""
    with Running([*BOTHENDS, "serve", "--quiet", *arguments, "--engine", engine]) as server:
        server.error_line(rb"  engine .*")
        shown = str(server.stderr)
        ports = [int(port) for port in re.findall(r"^  \w+://127\.0\.0\.1:(\d+)$", shown, re.MULTILINE)]
        yield server, ports
        assert server.stop() == 0, server.stderr


def round_trip(sock: socket.socket) -> float:
    """Return the median time from a request to its answer, in seconds, of 50."""
    times = []
    for _ in range(50):
        before = time.perf_counter()
        sock.sendall(b"hello")
        assert sock.recv(64) == b"HELLO"
        times.append(time.perf_counter() - before)
    return statistics.median(times)


@pytest.mark.parametrize("engine", ["poll", "epoll", "asyncio", "uvloop", "native"])
def test_stalled_handshakes_and_non_reading_peers_do_not_delay_others(engine: str) -> None:
    if reason := registry.load(engine).unavailable_reason():
        pytest.skip(reason)
    pytest.importorskip("trustme")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = STALLED + NOT_READING + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"RLIMIT_NOFILE is {hard} here, {needed} are required")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    endpoints = ["upper", "tls://127.0.0.1:0", "tcp://127.0.0.1:0"]
    with contextlib.ExitStack() as stack:
        _, (tls, tcp) = stack.enter_context(serving(engine, *endpoints, "--tls-self-signed"))
        normal = stack.enter_context(socket.create_connection(("127.0.0.1", tcp), timeout=TIMEOUT))
        baseline = round_trip(normal)
        for number in range(STALLED):
            stalled = stack.enter_context(socket.create_connection(("127.0.0.1", tls), timeout=TIMEOUT))
            stalled.sendall(b"\x16\x03\x01\x02\x00"[: number % 6])  # an incomplete ClientHello, or nothing
        for _ in range(NOT_READING):
            not_reading = stack.enter_context(
                connect_without_reading(Endpoint("tcp", host="127.0.0.1", port=tcp))
            )
            not_reading.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                not_reading.send(b"x" * 200_000)
        loaded = round_trip(normal)
        assert loaded - baseline < 0.05


@pytest.mark.parametrize("engine", ["threads", "epoll", "asyncio", "uvloop", "native"])
def test_memory_stays_flat_over_two_hundred_thousand_connections(engine: str) -> None:
    if reason := registry.load(engine).unavailable_reason():
        pytest.skip(reason)
    with serving(engine, "upper", "tcp://127.0.0.1:0") as (server, (port,)):
        run_requests(port, CONNECTIONS // 10)
        before = resident_memory(server.process.pid)
        run_requests(port, CONNECTIONS)
        grown = resident_memory(server.process.pid) - before
        assert grown < 2_000_000, f"{grown} bytes more after {CONNECTIONS} connections"


def run_requests(port: int, count: int) -> None:
    """Connect, send a request, read the answer and close, `count` times in total."""
    faults: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(count // CLIENTS):
                with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock:
                    sock.sendall(b"x")
                    assert sock.recv(16) == b"X"
        except (OSError, AssertionError) as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def resident_memory(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
