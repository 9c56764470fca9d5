"""Datagrams and sequenced packets through the proxy, on real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothends.endpoints import Endpoint
from bothends.impair import proxy as proxy_module
from bothends.impair.proxy import Proxy
from tests.impair.running import PATIENCE, Running, address, datagram_echo


@contextlib.contextmanager
def client_of(proxy: Proxy) -> Iterator[socket.socket]:
    """A UDP client of a proxy."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(address(proxy.listen))
        yield client


def asked(client: socket.socket, data: bytes) -> bytes:
    client.send(data)
    return client.recv(65_536)


@pytest.mark.parametrize("listen", ["udp://127.0.0.1:0", "udp://:0", "udp://localhost:0"])
@pytest.mark.parametrize("size", [0, 1, 1400, 65_507])
def test_datagrams_of_any_size_pass_whole(listen: str, size: int) -> None:
    with datagram_echo() as server, Running() as running:
        proxy = running.proxy(listen, server, ("latency", "1ms"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", proxy.listen.port))
            assert asked(client, bytes(size)) == bytes(size)


def test_each_client_gets_its_own_answers() -> None:
    with datagram_echo() as server, Running() as running:
        proxy = running.proxy("udp://127.0.0.1:0", server)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(client_of(proxy)) for _ in range(20)]
            for number, client in enumerate(clients):
                client.send(b"%d" % number)
            assert [client.recv(100) for client in clients] == [b"%d" % number for number in range(20)]
        assert running.do(lambda: len(proxy.conversations)) == 20


def test_a_session_ends_when_it_is_idle_and_another_one_begins() -> None:
    with datagram_echo() as server, Running(idle=0.05) as running:
        proxy = running.proxy("udp://127.0.0.1:0", server)
        with client_of(proxy) as client:
            assert asked(client, b"one") == b"one"
            running.wait_until(lambda: not proxy.conversations, "the session ends")
            assert asked(client, b"two") == b"two"
        assert running.do(lambda: proxy.opened) == 2


def test_sessions_are_bounded_and_those_who_talk_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "MOST_SESSIONS", 3)
    with datagram_echo() as server, Running() as running:
        proxy = running.proxy("udp://127.0.0.1:0", server)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(client_of(proxy)) for _ in range(5)]
            assert [asked(client, b"x") for client in clients[:3]] == [b"x"] * 3
            for client in clients[3:]:
                client.send(b"x")
            running.wait_until(lambda: proxy.turned_away == 2, "newcomers are turned away")
            assert asked(clients[0], b"still") == b"still"
            assert len(proxy.conversations) == 3


def test_loss_is_what_the_tally_says() -> None:
    with datagram_echo() as server, Running(seed=5) as running:
        proxy = running.proxy("udp://127.0.0.1:0", server, ("loss", "up:30%"))
        with client_of(proxy) as client:
            heard = 0
            tally = proxy.tallies["loss_upstream"]
            for number in range(200):
                client.send(b"%d" % number)
                running.wait_until(lambda number=number: tally.seen > number, "it is seen")  # type: ignore[misc]
                heard += tally.dropped + heard < number + 1 and client.recv(100) == b"%d" % number
            assert heard + running.do(lambda: tally.dropped) == 200
        assert 35 <= tally.dropped <= 85  # 60 within four standard deviations of 6.5


def test_a_server_that_is_not_there_yet_costs_datagrams_and_no_session() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved:
        reserved.bind(("127.0.0.1", 0))
        where = reserved.getsockname()
        reserved.close()
        with Running() as running:
            proxy = running.proxy("udp://127.0.0.1:0", f"udp://127.0.0.1:{where[1]}")
            with client_of(proxy) as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
                for _ in range(3):
                    client.send(b"lost")
                running.wait_until(lambda: proxy.traffic("upstream").received == 12, "they have come")
                late.bind(where)
                late.settimeout(PATIENCE)
                client.send(b"heard")
                data, peer = late.recvfrom(100)
                assert data == b"heard"
                late.sendto(b"answered", peer)
                assert client.recv(100) == b"answered"
            assert running.do(lambda: proxy.opened) == 1


@contextlib.contextmanager
def unix_echo(path: Path, kind: int) -> Iterator[Endpoint]:
    """A UNIX server of datagrams or sequenced packets that gives back what comes."""
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
                        connection.settimeout(PATIENCE)
                        while data := connection.recv(2**18):
                            connection.send(data)

        thread = threading.Thread(target=datagrams if kind == socket.SOCK_DGRAM else packets, daemon=True)
        thread.start()
        try:
            yield Endpoint("unix+dgram" if kind == socket.SOCK_DGRAM else "unix+seqpacket", path=str(path))
        finally:
            stopped.set()
            thread.join(PATIENCE)
            path.unlink()


KINDS = {"unix+dgram": socket.SOCK_DGRAM, "unix+seqpacket": socket.SOCK_SEQPACKET}


@contextlib.contextmanager
def unix_client(listen: Endpoint, folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, KINDS[listen.scheme]) as client:
        client.settimeout(PATIENCE)
        if listen.scheme == "unix+dgram":
            client.bind(str(folder / "client"))
        client.connect(listen.path)
        yield client


@pytest.mark.parametrize("near", KINDS)
@pytest.mark.parametrize("far", [*KINDS, "udp"])
def test_from_one_kind_of_messages_to_another(near: str, far: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        if far == "udp":
            server = stack.enter_context(datagram_echo())
        else:
            server = stack.enter_context(unix_echo(tmp_path / "server", KINDS[far]))
        running = stack.enter_context(Running())
        proxy = running.proxy(f"{near}://{tmp_path}/proxy", server, ("latency", "1ms"))
        with unix_client(proxy.listen, tmp_path) as client:
            for size in (1, 1000, 60_000):
                assert asked(client, bytes(size)) == bytes(size)
        if near == "unix+seqpacket":
            running.wait_until(lambda: not proxy.conversations, "the connection ends with its client")


def test_unix_datagrams_wait_for_a_server_that_takes_none_and_all_arrive(tmp_path: Path) -> None:
    """The kernel never loses them, so neither do we: the client's send blocks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server, Running() as running:
        server.bind(str(tmp_path / "server"))
        server.settimeout(PATIENCE)
        proxy = running.proxy(f"unix+dgram://{tmp_path}/proxy", f"unix+dgram://{tmp_path}/server")
        with unix_client(proxy.listen, tmp_path) as client:

            def say() -> None:
                for number in range(2000):
                    client.send(number.to_bytes(4) + bytes(1000))

            thread = threading.Thread(target=say)
            thread.start()
            running.wait_until(lambda: proxy.traffic("upstream").received > 200_000, "much has come")
            assert [int.from_bytes(server.recv(2000)[:4]) for _ in range(2000)] == list(range(2000))
            thread.join(PATIENCE)


def test_a_unix_server_that_comes_anew_gets_a_new_session(tmp_path: Path) -> None:
    path = tmp_path / "server"
    with Running() as running:
        with unix_echo(path, socket.SOCK_DGRAM) as server:
            proxy = running.proxy(f"unix+dgram://{tmp_path}/proxy", server)
            stack = contextlib.ExitStack()
            client = stack.enter_context(unix_client(proxy.listen, tmp_path))
            assert asked(client, b"one") == b"one"
        with stack, unix_echo(path, socket.SOCK_DGRAM):
            client.send(b"to the one that has gone")
            running.wait_until(lambda: not proxy.conversations, "the session ends")
            assert asked(client, b"two") == b"two"


def test_a_name_is_looked_up_and_what_comes_meanwhile_is_kept() -> None:
    with datagram_echo() as server, Running() as running:
        proxy = running.proxy("udp://127.0.0.1:0", Endpoint.parse(f"udp://localhost:{server.port}?family=4"))
        with client_of(proxy) as client:
            for number in range(5):
                client.send(b"%d" % number)
            assert [client.recv(10) for _ in range(5)] == [b"%d" % number for number in range(5)]


def test_disabled_it_forgets_its_sessions(tmp_path: Path) -> None:
    with datagram_echo() as server, Running() as running:
        proxy = running.proxy("udp://127.0.0.1:0", server)
        with client_of(proxy) as client:
            assert asked(client, b"x") == b"x"
            running.do(proxy.disable)
            assert not proxy.conversations
            running.do(proxy.enable)
            assert asked(client, b"y") == b"y"
