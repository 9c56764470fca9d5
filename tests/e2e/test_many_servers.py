"""Ten thousand connections at once, and a hundred thousand requests with resets and half-closes."""

from __future__ import annotations

import contextlib
import random
import resource
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from bothends.client.faults import reset
from bothends.engines import registry
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

IDLE = 10_000
REQUESTS = 100_000
CLIENTS = 8
TIMEOUT = 30.0  # seconds: long, because the machine may be busy with other tests


@contextlib.contextmanager
def serving(engine: str, service: str = "upper") -> Iterator[tuple[str, int]]:
    """Run `bothends serve`. Yields its address."""
    command = [*BOTHENDS, "serve", "--quiet", service, "tcp://127.0.0.1:0", "--engine", engine]
    with Running(command) as server:
        port = int(server.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1])
        yield "127.0.0.1", port
        server.process.terminate()
        assert server.wait() == 0, server.stderr


@pytest.fixture
def descriptors() -> None:
    """Raise RLIMIT_NOFILE for IDLE connections, in this process and its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = IDLE + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"RLIMIT_NOFILE is {hard} here, {needed} are required")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("engine", ["epoll", "asyncio", "uvloop", "native"])
def test_ten_thousand_idle_connections_and_one_active(engine: str) -> None:
    if reason := registry.load(engine).unavailable_reason():
        pytest.skip(reason)
    with serving(engine) as address, contextlib.ExitStack() as stack:
        idle = []
        for _ in range(IDLE):
            connection = stack.enter_context(socket.create_connection(address, timeout=TIMEOUT))
            idle.append(connection)
        with socket.create_connection(address, timeout=TIMEOUT) as active:
            for number in range(200):
                request = b"request %d\n" % number
                active.sendall(request)
                assert active.recv(1024) == request.upper()
        # The idle connections are still served.
        for connection in random.Random(1).sample(idle, 200):
            connection.sendall(b"still here\n")
            assert connection.recv(1024) == b"STILL HERE\n"


@pytest.mark.parametrize("engine", [name for name in registry.names() if name != "iterative"])
def test_a_hundred_thousand_requests_with_resets_and_half_closes(engine: str) -> None:
    if reason := registry.load(engine).unavailable_reason():
        pytest.skip(reason)
    faults: list[str] = []
    answered: list[int] = []
    with serving(engine) as address:
        clients = [
            threading.Thread(target=_client_loop, args=(address, random.Random(seed), answered, faults))
            for seed in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert not faults
    assert sum(answered) >= REQUESTS


def _client_loop(
    address: tuple[str, int], rng: random.Random, answered: list[int], faults: list[str]
) -> None:
    """Send this client's share of the requests, and end connections in all ways."""
    count = 0
    try:
        while count < REQUESTS // CLIENTS:
            with socket.create_connection(address, timeout=TIMEOUT) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _ in range(rng.randint(1, 200)):
                    request = rng.randbytes(rng.randint(1, 40)).hex().encode()
                    connection.sendall(request)
                    _expect(connection, request.upper())
                    count += 1
                ending = rng.choice(["close", "half-close", "reset", "reset unread", "reset mid-way"])
                if ending == "half-close":
                    connection.sendall(b"last words")
                    connection.shutdown(socket.SHUT_WR)
                    _expect(connection, b"LAST WORDS")
                    assert connection.recv(1) == b"", "something after the last answer"
                elif ending == "reset unread":
                    connection.sendall(b"x" * 1000)
                    select.select([connection], [], [], TIMEOUT)
                    reset(connection)
                elif ending == "reset mid-way":
                    connection.sendall(b"\xc3")  # an incomplete character
                    reset(connection)
                elif ending == "reset":
                    reset(connection)
    except (OSError, AssertionError) as error:
        faults.append(f"after {count} requests: {error!r}")
    answered.append(count)


def _expect(connection: socket.socket, answer: bytes) -> None:
    got = b""
    while len(got) < len(answer):
        data = connection.recv(len(answer) - len(got))
        assert data, f"EOF after {got!r} of {answer!r}"
        got += data
    assert got == answer, f"{got!r} is not {answer!r}"
