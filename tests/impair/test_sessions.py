"""Proxying datagrams and sequenced packets, on real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bothends.endpoints import Endpoint
from bothends.impair import dialer
from bothends.impair import proxy as proxy_module
from bothends.impair.proxy import Proxy
from bothends.sockets import open_connection
from tests.impair.running import TIMEOUT, RunningProxies, address, udp_echo_server


@contextlib.contextmanager
def udp_client(proxy: Proxy) -> Iterator[socket.socket]:
    """A UDP socket connected to a proxy, with a timeout."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.connect(address(proxy.listen))
        yield client


def request(client: socket.socket, data: bytes) -> bytes:
    client.send(data)
    return client.recv(65_536)


@pytest.mark.parametrize("listen", ["udp://127.0.0.1:0", "udp://:0", "udp://localhost:0"])
@pytest.mark.parametrize("size", [0, 1, 1400, 65_507])
def test_udp_any_size_is_forwarded_whole(listen: str, size: int) -> None:
    with udp_echo_server() as server, RunningProxies() as running:
        proxy = running.proxy(listen, server, ("latency", "1ms"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(TIMEOUT)
            client.connect(("127.0.0.1", proxy.listen.port))
            assert request(client, bytes(size)) == bytes(size)


def test_udp_responses_reach_their_client() -> None:
    with udp_echo_server() as server, RunningProxies() as running:
        proxy = running.proxy("udp://127.0.0.1:0", server)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(udp_client(proxy)) for _ in range(20)]
            for number, client in enumerate(clients):
                client.send(b"%d" % number)
            assert [client.recv(100) for client in clients] == [b"%d" % number for number in range(20)]
        assert running.run_on_loop(lambda: len(proxy.flows)) == 20


def test_udp_idle_session_ends_and_new_one_begins() -> None:
    with udp_echo_server() as server, RunningProxies(idle_timeout=0.05) as running:
        proxy = running.proxy("udp://127.0.0.1:0", server)
        with udp_client(proxy) as client:
            assert request(client, b"one") == b"one"
            running.wait_until(lambda: not proxy.flows, "the session ends")
            assert request(client, b"two") == b"two"
        assert running.run_on_loop(lambda: proxy.flows_opened) == 2


def test_udp_replies_keep_the_session_open() -> None:
    """A client that only receives, such as one of a multicast stream, is not idle."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        RunningProxies(idle_timeout=0.4) as running,
    ):
        server.bind(("127.0.0.1", 0))
        server.settimeout(TIMEOUT)
        proxy = running.proxy("udp://127.0.0.1:0", f"udp://127.0.0.1:{server.getsockname()[1]}")
        with udp_client(proxy) as client:
            client.send(b"subscribe")
            _, peer = server.recvfrom(100)
            pause = threading.Event()
            for number in range(8):  # twice the timeout
                server.sendto(b"%d" % number, peer)
                assert client.recv(100) == b"%d" % number
                pause.wait(0.1)
        assert running.run_on_loop(lambda: proxy.flows_opened) == 1


def test_udp_datagrams_before_the_server_is_known_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = threading.Event()

    def resolve_late(*arguments: Any, **more: Any) -> socket.socket:
        assert resolved.wait(TIMEOUT)
        return open_connection(*arguments, **more)

    monkeypatch.setattr(dialer, "open_connection", resolve_late)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, RunningProxies() as running:
        server.bind(("127.0.0.1", 0))
        server.settimeout(TIMEOUT)
        proxy = running.proxy("udp://127.0.0.1:0", f"udp://localhost:{server.getsockname()[1]}?family=4")
        with udp_client(proxy) as client, udp_client(proxy) as other:
            for number in range(200):
                client.send(b"%d" % number)
            other.send(b"of another")  # it is read after the others
            running.wait_until(lambda: len(proxy.flows) == 2, "all datagrams are read")
            resolved.set()
            received = [server.recv(100) for _ in range(65)]
            client.send(b"later")
            assert server.recv(100) == b"later"
    received.remove(b"of another")
    assert received == [b"%d" % number for number in range(64)]


def test_udp_session_limit_rejects_new_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "MAX_SESSIONS", 3)
    with udp_echo_server() as server, RunningProxies() as running:
        proxy = running.proxy("udp://127.0.0.1:0", server)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(udp_client(proxy)) for _ in range(5)]
            assert [request(client, b"x") for client in clients[:3]] == [b"x"] * 3
            for client in clients[3:]:
                client.send(b"x")
            running.wait_until(lambda: proxy.datagrams_rejected == 2, "new clients are rejected")
            assert request(clients[0], b"still") == b"still"
            assert len(proxy.flows) == 3


def test_udp_loss_matches_toxic_counters() -> None:
    with udp_echo_server() as server, RunningProxies(seed=5) as running:
        proxy = running.proxy("udp://127.0.0.1:0", server, ("loss", "up:30%"))
        with udp_client(proxy) as client:
            received = 0
            counters = proxy.toxic_counters["loss_upstream"]
            for number in range(200):
                client.send(b"%d" % number)
                running.wait_until(lambda number=number: counters.seen > number, "it is counted")  # type: ignore[misc]
                received += counters.dropped + received < number + 1 and client.recv(100) == b"%d" % number
            assert received + running.run_on_loop(lambda: counters.dropped) == 200
        assert 35 <= counters.dropped <= 85  # 60 within four standard deviations of 6.5


def test_udp_unreachable_server_keeps_session() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved:
        reserved.bind(("127.0.0.1", 0))
        free_address = reserved.getsockname()
        reserved.close()
        with RunningProxies() as running:
            proxy = running.proxy("udp://127.0.0.1:0", f"udp://127.0.0.1:{free_address[1]}")
            with udp_client(proxy) as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
                for _ in range(3):
                    client.send(b"lost")
                running.wait_until(
                    lambda: proxy.traffic("upstream").received == 12, "three datagrams are received"
                )
                late.bind(free_address)
                late.settimeout(TIMEOUT)
                client.send(b"received")
                data, peer = late.recvfrom(100)
                assert data == b"received"
                late.sendto(b"answered", peer)
                assert client.recv(100) == b"answered"
            assert running.run_on_loop(lambda: proxy.flows_opened) == 1


@contextlib.contextmanager
def unix_echo(path: Path, kind: int) -> Iterator[Endpoint]:
    """A UNIX echo server for datagrams or sequenced packets."""
    stopped = threading.Event()
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(path))
        sock.settimeout(0.05)
        if kind == socket.SOCK_SEQPACKET:
            sock.listen()

        def datagrams() -> None:
            while not stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    data, peer = sock.recvfrom(2**18)
                    sock.sendto(data, peer)

        def packets() -> None:
            while not stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = sock.accept()
                    with connection:
                        connection.settimeout(TIMEOUT)
                        while data := connection.recv(2**18):
                            connection.send(data)

        thread = threading.Thread(target=datagrams if kind == socket.SOCK_DGRAM else packets, daemon=True)
        thread.start()
        try:
            yield Endpoint("unix+dgram" if kind == socket.SOCK_DGRAM else "unix+seqpacket", path=str(path))
        finally:
            stopped.set()
            thread.join(TIMEOUT)
            path.unlink()


KINDS = {"unix+dgram": socket.SOCK_DGRAM, "unix+seqpacket": socket.SOCK_SEQPACKET}


@contextlib.contextmanager
def unix_client(listen: Endpoint, folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, KINDS[listen.scheme]) as client:
        client.settimeout(TIMEOUT)
        if listen.scheme == "unix+dgram":
            client.bind(str(folder / "client"))
        client.connect(listen.path)
        yield client


@pytest.mark.parametrize("near", KINDS)
@pytest.mark.parametrize("far", [*KINDS, "udp"])
def test_messages_forward_between_transports(near: str, far: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        if far == "udp":
            server = stack.enter_context(udp_echo_server())
        else:
            server = stack.enter_context(unix_echo(tmp_path / "server", KINDS[far]))
        running = stack.enter_context(RunningProxies())
        proxy = running.proxy(f"{near}://{tmp_path}/proxy", server, ("latency", "1ms"))
        with unix_client(proxy.listen, tmp_path) as client:
            for size in (1, 1000, 60_000):
                assert request(client, bytes(size)) == bytes(size)
        if near == "unix+seqpacket":
            running.wait_until(lambda: not proxy.flows, "the connection ends with its client")


def test_unix_datagrams_block_on_full_server_without_loss(tmp_path: Path) -> None:
    """The kernel never drops UNIX datagrams, so the proxy does not either: the client's send blocks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server, RunningProxies() as running:
        server.bind(str(tmp_path / "server"))
        server.settimeout(TIMEOUT)
        proxy = running.proxy(f"unix+dgram://{tmp_path}/proxy", f"unix+dgram://{tmp_path}/server")
        with unix_client(proxy.listen, tmp_path) as client:

            def send_all() -> None:
                for number in range(2000):
                    client.send(number.to_bytes(4) + bytes(1000))

            thread = threading.Thread(target=send_all)
            thread.start()
            running.wait_until(
                lambda: proxy.traffic("upstream").received > 200_000, "200 datagrams are received"
            )
            assert [int.from_bytes(server.recv(2000)[:4]) for _ in range(2000)] == list(range(2000))
            thread.join(TIMEOUT)


def test_unix_server_restart_starts_new_session(tmp_path: Path) -> None:
    path = tmp_path / "server"
    with RunningProxies() as running:
        with unix_echo(path, socket.SOCK_DGRAM) as server:
            proxy = running.proxy(f"unix+dgram://{tmp_path}/proxy", server)
            stack = contextlib.ExitStack()
            client = stack.enter_context(unix_client(proxy.listen, tmp_path))
            assert request(client, b"one") == b"one"
        with stack, unix_echo(path, socket.SOCK_DGRAM):
            client.send(b"to the closed socket")
            running.wait_until(lambda: not proxy.flows, "the session ends")
            assert request(client, b"two") == b"two"


def test_udp_datagrams_are_queued_during_name_resolution() -> None:
    with udp_echo_server() as server, RunningProxies() as running:
        proxy = running.proxy("udp://127.0.0.1:0", Endpoint.parse(f"udp://localhost:{server.port}?family=4"))
        with udp_client(proxy) as client:
            for number in range(5):
                client.send(b"%d" % number)
            assert [client.recv(10) for _ in range(5)] == [b"%d" % number for number in range(5)]


def test_disabled_proxy_closes_sessions(tmp_path: Path) -> None:
    with udp_echo_server() as server, RunningProxies() as running:
        proxy = running.proxy("udp://127.0.0.1:0", server)
        with udp_client(proxy) as client:
            assert request(client, b"x") == b"x"
            running.run_on_loop(proxy.disable)
            assert not proxy.flows
            running.run_on_loop(proxy.enable)
            assert request(client, b"y") == b"y"
