"""Many at once, and many one after another: what a server must bear all day, in a minute."""

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
from tests.interop.ours import BOTHENDS
from tests.interop.running import Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

IDLE = 10_000
REQUESTS = 100_000
CLIENTS = 8
TIMEOUT = 30.0  # seconds: for a machine that is busy with other tests, not for the server


@contextlib.contextmanager
def serving(engine: str, service: str = "upper") -> Iterator[tuple[str, int]]:
    """`bothends serve` in a process of its own; where it is."""
    command = [*BOTHENDS, "serve", "--quiet", service, "tcp://127.0.0.1:0", "--engine", engine]
    with Running(command) as server:
        port = int(server.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1])
        yield "127.0.0.1", port
        server.process.terminate()
        assert server.wait() == 0, server.stderr


@pytest.fixture
def descriptors() -> None:
    """Room for IDLE connections, in this process and in those it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"RLIMIT_NOFILE is {hard} here, {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("engine", ["epoll", "asyncio", "uvloop", "native"])
def test_ten_thousand_idle_connections_and_one_active(engine: str) -> None:
    if reason := registry.load(engine).unavailable_reason():
        pytest.skip(reason)
    with serving(engine) as place, contextlib.ExitStack() as stack:
        idle = []
        for _ in range(IDLE):
            connection = stack.enter_context(socket.create_connection(place, timeout=TIMEOUT))
            idle.append(connection)
        with socket.create_connection(place, timeout=TIMEOUT) as talking:
            for number in range(200):
                request = b"request %d\n" % number
                talking.sendall(request)
                assert talking.recv(1024) == request.upper()
        # And each idle one is still served.
        for connection in random.Random(1).sample(idle, 200):
            connection.sendall(b"still here\n")
            assert connection.recv(1024) == b"STILL HERE\n"


@pytest.mark.parametrize("engine", [name for name in registry.names() if name != "iterative"])
def test_a_hundred_thousand_requests_with_resets_and_half_closes(engine: str) -> None:
    if reason := registry.load(engine).unavailable_reason():
        pytest.skip(reason)
    faults: list[str] = []
    answered: list[int] = []
    with serving(engine) as place:
        callers = [
            threading.Thread(target=_client_loop, args=(place, random.Random(seed), answered, faults))
            for seed in range(CLIENTS)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert not faults
    assert sum(answered) >= REQUESTS


def _client_loop(
    address: tuple[str, int], rng: random.Random, answered: list[int], faults: list[str]
) -> None:
    """Talk until this caller's share is answered, ending connections in every way there is."""
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
                    connection.sendall(b"\xc3")  # half a character
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
