"""What is left behind, and what happens where something is wanting: descriptors, a server, peace."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothends.endpoints import Endpoint
from bothends.impair.api import Api
from bothends.impair.api_server import Control
from tests.impair.running import PATIENCE, Running, call, datagram_echo, echo, tcp_server
from tests.interop.ours import BOTHENDS
from tests.interop.running import Running as Process


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_nothing_is_left_open(tmp_path: Path) -> None:
    with tcp_server(echo) as server, datagram_echo() as datagrams:
        before = len(descriptors())
        for _ in range(5):
            with Running() as running:
                proxies = [
                    running.proxy("tcp://127.0.0.1:0", server, ("latency", "5ms"), name="a"),
                    running.proxy(f"unix://{tmp_path}/a", server, ("blackhole", ""), name="b"),
                ]
                udp = running.proxy("udp://127.0.0.1:0", datagrams, name="c")
                with contextlib.ExitStack() as stack:
                    clients = [stack.enter_context(call(each.listen)) for each in proxies * 3]
                    for client in clients:
                        client.sendall(b"x")
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                        client.settimeout(PATIENCE)
                        client.sendto(b"x", (udp.listen.host, udp.listen.port))
                        assert client.recv(1) == b"x"
        assert len(descriptors()) <= before + 6  # what the servers of the test have not closed yet
    assert not list(tmp_path.iterdir())


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, descriptors()))
    fillers = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest + 1 - len(descriptors()))]
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        while True:
            try:
                fillers.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        for each in fillers:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_it_waits_tells_once_and_goes_on() -> None:
    with tcp_server(echo) as server, Running() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server)
        control = running.do(
            lambda: Control(running.loop, Api(running.proxies, "0"), Endpoint.parse("tcp://127.0.0.1:0"))
        )
        with socket.socket() as client, socket.socket() as visitor:
            for each in (client, visitor):
                each.settimeout(PATIENCE)
            with no_descriptors_left():
                client.connect((proxy.listen.host, proxy.listen.port))
                visitor.connect((control.endpoint.host, control.endpoint.port))
                running.wait_until(lambda: bool(running.told), "it is told")
                turns = [0]
                turn = running.loop.turn

                def counted() -> None:
                    turns[0] += 1
                    turn()

                running.do(lambda: setattr(running.loop, "turn", counted))
                for _ in range(5):
                    running.do(lambda: None)
                assert turns[0] < 30
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            visitor.sendall(b"GET /version HTTP/1.0\r\n\r\n")
            assert visitor.recv(12) == b"HTTP/1.1 200"
        assert len(running.told) == 1
        assert "Too many open files" in running.told[0]
        running.do(control.close)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_started_stopped_and_killed_many_times_it_leaves_nothing(tmp_path: Path) -> None:
    """Every third one is killed in the middle: a stale socket file stays, which the next one replaces."""
    path = tmp_path / "a.sock"
    with tcp_server(echo) as server:
        for number in range(200):
            arguments = ["impair", "--no-api", f"unix://{path}", str(server), "--latency", "1ms"]
            with Process([*BOTHENDS, *arguments]) as process:
                process.error_line(rb"  proxy: .*")
                with call(Endpoint("unix", path=str(path))) as client:
                    client.sendall(b"x")
                    assert client.recv(1) == b"x"
                    process.process.send_signal((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[number % 3])
                    assert process.end() == (-signal.SIGKILL if number % 3 == 2 else 0)
            assert path.exists() == (number % 3 == 2)
    path.unlink(missing_ok=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_thousand_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8192:
        pytest.skip("too few descriptors may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, hard))
    try:
        with tcp_server(echo) as server, Running() as running, contextlib.ExitStack() as stack:
            proxy = running.proxy("tcp://127.0.0.1:0", server, ("latency", "50ms±10ms"))
            clients = [stack.enter_context(call(proxy.listen)) for _ in range(1000)]
            for number, client in enumerate(clients):
                client.sendall(number.to_bytes(4))
            assert [int.from_bytes(client.recv(4)) for client in clients] == list(range(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
