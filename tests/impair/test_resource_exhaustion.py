"""Resource limits and leaks: file descriptors, socket files after a kill, many connections."""

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
from bothends.impair.api_server import ApiServer
from tests.impair.api_client import ApiClient
from tests.impair.running import TIMEOUT, RunningProxies, connect, echo, tcp_server, udp_echo_server
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running as Process


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_close_leaves_no_descriptors(tmp_path: Path) -> None:
    with tcp_server(echo) as server, udp_echo_server() as datagrams:
        before = len(descriptors())
        for _ in range(5):
            with RunningProxies() as running:
                proxies = [
                    running.proxy("tcp://127.0.0.1:0", server, ("latency", "5ms"), name="a"),
                    running.proxy(f"unix://{tmp_path}/a", server, ("blackhole", ""), name="b"),
                ]
                udp = running.proxy("udp://127.0.0.1:0", datagrams, name="c")
                with contextlib.ExitStack() as stack:
                    clients = [stack.enter_context(connect(each.listen)) for each in proxies * 3]
                    for client in clients:
                        client.sendall(b"x")
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                        client.settimeout(TIMEOUT)
                        client.sendto(b"x", (udp.listen.host, udp.listen.port))
                        assert client.recv(1) == b"x"
        assert len(descriptors()) <= before + 6  # sockets that the test's servers have not closed yet
    assert not list(tmp_path.iterdir())


@contextlib.contextmanager
def exhausted_descriptors() -> Iterator[None]:
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


def test_descriptor_exhaustion_pauses_accept_and_notifies_once() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server)
        api_server = running.run_on_loop(
            lambda: ApiServer(running.loop, Api(running.proxies, "0"), Endpoint.parse("tcp://127.0.0.1:0"))
        )
        with socket.socket() as client, socket.socket() as api_client:
            for each in (client, api_client):
                each.settimeout(TIMEOUT)
            with exhausted_descriptors():
                client.connect((proxy.listen.host, proxy.listen.port))
                api_client.connect((api_server.endpoint.host, api_server.endpoint.port))
                running.wait_until(lambda: bool(running.notices), "the pause is notified")
                iterations = [0]
                run_once = running.loop.run_once

                def counted() -> None:
                    iterations[0] += 1
                    run_once()

                running.run_on_loop(lambda: setattr(running.loop, "run_once", counted))
                for _ in range(5):
                    running.run_on_loop(lambda: None)
                assert iterations[0] < 30
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            api_client.sendall(b"GET /version HTTP/1.0\r\n\r\n")
            assert api_client.recv(12) == b"HTTP/1.1 200"
        assert len(running.notices) == 1
        assert "Too many open files" in running.notices[0]
        running.run_on_loop(api_server.close)


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True


def test_api_closes_the_oldest_connection_of_the_busiest_peer_at_its_limits(api_client: ApiClient) -> None:
    """At most 96 connections of one address are open, and 128 in all."""
    server = ("127.0.0.1", api_client.server.endpoint.port)
    clients: list[socket.socket] = []

    def connect_from(host: str, count: int) -> list[int]:
        """Connect, wait until all are accepted, and return the numbers of the closed ones."""
        for _ in range(count):
            each = stack.enter_context(socket.create_connection(server, TIMEOUT, (host, 0)))
            each.settimeout(TIMEOUT)
            clients.append(each)
        clients[-1].sendall(b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert clients[-1].recv(65_536).startswith(b"HTTP/1.1 200")
        return [number for number, each in enumerate(clients) if not is_open(each)]

    with contextlib.ExitStack() as stack:
        assert connect_from("127.0.0.1", 96) == []
        assert connect_from("127.0.0.1", 1) == [0]
        assert connect_from("127.0.0.2", 32) == [0]
        assert connect_from("127.0.0.3", 1) == [0, 1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_repeated_start_and_kill_leaves_no_files(tmp_path: Path) -> None:
    """Every third process is killed with SIGKILL. Its stale socket file is replaced by the next process."""
    path = tmp_path / "a.sock"
    with tcp_server(echo) as server:
        for number in range(200):
            arguments = ["impair", "--no-api", f"unix://{path}", str(server), "--latency", "1ms"]
            with Process([*BOTHENDS, *arguments]) as process:
                process.error_line(rb"  proxy: .*")
                with connect(Endpoint("unix", path=str(path))) as client:
                    client.sendall(b"x")
                    assert client.recv(1) == b"x"
                    process.process.send_signal((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[number % 3])
                    assert process.wait() == (-signal.SIGKILL if number % 3 == 2 else 0)
            assert path.exists() == (number % 3 == 2)
    path.unlink(missing_ok=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_thousand_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8192:
        pytest.skip("RLIMIT_NOFILE is below 8192")
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, hard))
    try:
        with tcp_server(echo) as server, RunningProxies() as running, contextlib.ExitStack() as stack:
            proxy = running.proxy("tcp://127.0.0.1:0", server, ("latency", "50ms±10ms"))
            clients = [stack.enter_context(connect(proxy.listen)) for _ in range(1000)]
            for number, client in enumerate(clients):
                client.sendall(number.to_bytes(4))
            assert [int.from_bytes(client.recv(4)) for client in clients] == list(range(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
