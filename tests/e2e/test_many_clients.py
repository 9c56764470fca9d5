"""Crowds: those who never finish their handshake, those who never read, and those who come and go all day."""

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
from tests.interop.ours import BOTHENDS
from tests.interop.running import Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STALLED = 1_000
NOT_READING = 1_000
CONNECTIONS = 200_000
CLIENTS = 4
TIMEOUT = 30.0


@contextlib.contextmanager
def serving(engine: str, *arguments: str) -> Iterator[tuple[Running, list[int]]]:
    """`bothends serve`, and the ports of its endpoints."""
    with Running([*BOTHENDS, "serve", "--quiet", *arguments, "--engine", engine]) as server:
        server.error_line(rb"  engine .*")
        shown = str(server.stderr)
        ports = [int(port) for port in re.findall(r"^  \w+://127\.0\.0\.1:(\d+)$", shown, re.MULTILINE)]
        yield server, ports
        assert server.stop() == 0, server.stderr


def round_trip(sock: socket.socket) -> float:
    """Seconds from a request to its answer; the median of some."""
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
    wanted = STALLED + NOT_READING + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"RLIMIT_NOFILE is {hard} here, {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    endpoints = ["upper", "tls://127.0.0.1:0", "tcp://127.0.0.1:0"]
    with contextlib.ExitStack() as stack:
        _, (tls, tcp) = stack.enter_context(serving(engine, *endpoints, "--tls-self-signed"))
        normal = stack.enter_context(socket.create_connection(("127.0.0.1", tcp), timeout=TIMEOUT))
        alone = round_trip(normal)
        for number in range(STALLED):
            stalled = stack.enter_context(socket.create_connection(("127.0.0.1", tls), timeout=TIMEOUT))
            stalled.sendall(b"\x16\x03\x01\x02\x00"[: number % 6])  # a part of a ClientHello, or nothing
        for _ in range(NOT_READING):
            deaf = stack.enter_context(connect_without_reading(Endpoint("tcp", host="127.0.0.1", port=tcp)))
            deaf.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                deaf.send(b"x" * 200_000)
        crowded = round_trip(normal)
        assert crowded - alone < 0.05


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
    """Connect, ask, be answered and leave, so many times."""
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
    """A process's memory in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
