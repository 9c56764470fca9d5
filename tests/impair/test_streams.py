"""Proxying streams, on real sockets: bytes, half-close, backpressure, toxics added and removed."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
import time
from pathlib import Path

import pytest

from bothends.impair.proxy import Proxy
from tests.impair.running import TIMEOUT, RunningProxies, connect, echo, read_all, reverse, tcp_server

DATA = random.Random(1).randbytes(1_000_000)


def exchange(client: socket.socket, data: bytes) -> bytes:
    """Send everything and half-close in a thread while reading until EOF. Returns the received bytes."""

    def send_all() -> None:
        with contextlib.suppress(OSError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send_all)
    thread.start()
    try:
        return read_all(client)
    finally:
        thread.join(TIMEOUT)


def assert_connection_reset(proxy: Proxy) -> None:
    """Assert that a connection is reset once it is open, possibly before connect() returns."""
    with pytest.raises(ConnectionResetError), connect(proxy.listen) as client:
        client.recv(1)


def test_stream_forwards_both_directions() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server)
        with connect(proxy.listen) as client:
            assert exchange(client, DATA) == DATA


def test_half_close_is_forwarded_before_response() -> None:
    with tcp_server(reverse) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server)
        with connect(proxy.listen) as client:
            assert exchange(client, DATA[:5000]) == DATA[:5000][::-1]


@pytest.mark.parametrize("listen", ["unix://{}/in.sock", "tcp://localhost:0", "tcp://:0"])
def test_stream_forwards_between_transports(listen: str, tmp_path: Path) -> None:
    with tcp_server(reverse) as server, RunningProxies() as running:
        back = running.proxy(f"unix://{tmp_path}/out.sock", server, name="back")
        front = running.proxy(listen.format(tmp_path), back.listen, name="front")
        with connect(front.listen) as client:
            assert exchange(client, DATA) == DATA[::-1]
    assert list(tmp_path.iterdir()) == []


def test_upstream_host_name_is_resolved() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server.with_host("localhost"))
        with connect(proxy.listen) as client:
            assert exchange(client, b"hello") == b"hello"


# Lossless toxics and the minimum duration of a transfer in seconds.
@pytest.mark.parametrize(
    ("toxic", "text", "min_seconds"),
    [
        ("latency", "20ms±10ms,correlation=50%", 0.02),
        ("bandwidth", "5MB/s", 0.18),
        ("slicer", "5000±2000,delay=100us", 0.01),
        ("stall", "100ms", 0.1),
        ("slow_close", "100ms", 0.2),
    ],
)
def test_lossless_toxics_preserve_stream_bytes(toxic: str, text: str, min_seconds: float) -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, (toxic, text))
        started = time.monotonic()
        with connect(proxy.listen) as client:
            assert exchange(client, DATA) == DATA
        assert time.monotonic() - started >= min_seconds


def test_adding_and_removing_toxics_preserves_stream_bytes() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("bandwidth", "20MB/s,name=limit"))
        with connect(proxy.listen) as client:
            received: list[bytes] = []
            thread = threading.Thread(target=lambda: received.append(exchange(client, DATA * 3)))
            thread.start()
            for kind, text in [
                ("latency", "30ms±30ms"),
                ("slicer", "900"),
                ("blackhole", ""),
                ("stall", "20ms"),
            ]:
                seen = running.run_on_loop(lambda: proxy.traffic("downstream").sent)
                running.add_toxic(proxy, kind, text)
                if kind != "blackhole":
                    running.wait_until(
                        lambda seen=seen: proxy.traffic("downstream").sent > seen or not thread.is_alive(),  # type: ignore[misc]
                        "more bytes are forwarded",
                    )
                for direction in ("upstream", "downstream"):
                    running.run_on_loop(lambda name=f"{kind}_{direction}": proxy.remove_toxic(name))  # type: ignore[misc]
            running.run_on_loop(proxy.remove_all_toxics)
            thread.join(TIMEOUT)
        assert received == [DATA * 3]


def test_unread_server_applies_backpressure_to_client() -> None:
    """The amount of data in flight is bounded by the kernel's buffers on both sides and the proxy's queue."""
    release = threading.Event()

    def slow_reader(connection: socket.socket) -> None:
        release.wait(TIMEOUT)
        connection.sendall(len(read_all(connection)).to_bytes(8))

    with tcp_server(slow_reader) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server)
        with connect(proxy.listen) as client:
            client.setblocking(False)
            sent = 0
            while select.select([], [client], [], 0.3)[1]:
                sent += client.send(bytes(65_536))
                assert sent < 64 * 2**20, "the client's send never blocks"
            assert running.run_on_loop(lambda: proxy.traffic("upstream").received) < 2**23
            client.settimeout(TIMEOUT)
            release.set()
            client.shutdown(socket.SHUT_WR)
            assert int.from_bytes(read_all(client)) == sent


def test_unreachable_upstream_resets_client_and_notifies() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", f"tcp://127.0.0.1:{port}")
        assert_connection_reset(proxy)
        running.wait_until(lambda: not proxy.flows, "the connection is forgotten")
        assert "ECONNREFUSED" in running.notices[0]


def test_reset_is_forwarded_to_other_end() -> None:
    def reset_after_read(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with tcp_server(reset_after_read) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server)
        with connect(proxy.listen) as client:
            client.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_latency_delivers_response_before_server_reset() -> None:
    """The server closes after its response; its kernel answers further data with RST (RFC 1122)."""

    def close_after_response(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"answer")

    with tcp_server(close_after_response) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("latency", "down:200ms"))
        with connect(proxy.listen) as client:
            client.sendall(b"question")
            running.wait_until(lambda: proxy.traffic("downstream").received == 6, "the server has responded")
            client.sendall(b"more")
            assert client.recv(100) == b"answer"
            with pytest.raises(ConnectionResetError):
                read_all(client)
        running.wait_until(lambda: not proxy.flows, "the connection ends")


def test_reset_held_by_blackhole_is_delivered_on_removal() -> None:
    def reset_after_read(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with tcp_server(reset_after_read) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("blackhole", "down:"))
        with connect(proxy.listen) as client:
            client.sendall(b"x")
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(TIMEOUT)
            running.run_on_loop(proxy.remove_all_toxics)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        running.wait_until(lambda: not proxy.flows, "the connection ends")


def test_reset_peer_resets_client() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("reset_peer", "up:0ms"))
        with connect(proxy.listen) as client:
            client.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_input_is_discarded_after_a_toxic_has_closed_and_not_reset() -> None:
    with (
        tcp_server(lambda connection: connection.sendall(b"x" * 9000)) as server,
        RunningProxies() as running,
    ):
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("limit_data", "down:5000"))
        with connect(proxy.listen) as client:
            assert len(read_all(client)) == 5000
            for _ in range(3):  # a reset would fail the second send
                client.sendall(b"more")
                running.run_on_loop(lambda: None)
            assert proxy.flows


def test_limit_data_closes_gracefully_after_exact_bytes() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("limit_data", "down:5000"))
        with connect(proxy.listen) as client:
            assert exchange(client, DATA) == DATA[:5000]
        running.wait_until(lambda: not proxy.flows, "the connection ends")


def test_timeout_closes_connection_without_data() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("timeout", "down:50ms"))
        with connect(proxy.listen) as client:
            client.sendall(b"hello")
            assert read_all(client) == b""


def test_withhold_end_delays_half_close_until_removal() -> None:
    with tcp_server(reverse) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("withhold_end", "up:"))
        with connect(proxy.listen) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(TIMEOUT)
            running.run_on_loop(lambda: proxy.remove_toxic("withhold_end_upstream"))
            assert read_all(client) == b"olleh"


def test_blackhole_removal_delivers_held_data() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server)
        with connect(proxy.listen) as client:
            client.sendall(b"before ")
            assert client.recv(100) == b"before "
            running.add_toxic(proxy, "blackhole")
            client.sendall(b"during ")
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(TIMEOUT)
            running.run_on_loop(proxy.remove_all_toxics)
            client.sendall(b"after")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"during after"


def test_client_reset_behind_blackhole_does_not_busy_loop() -> None:
    """epoll reports EPOLLHUP and EPOLLERR on every call while they last; the loop must not spin on them."""
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("blackhole", ""))
        client = connect(proxy.listen)
        client.sendall(b"x")
        running.wait_until(lambda: proxy.traffic("upstream").received == 1, "the byte is held")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        iterations, done = [0], threading.Event()
        run_once = running.loop.run_once

        def counted() -> None:
            iterations[0] += 1
            run_once()

        running.run_on_loop(lambda: setattr(running.loop, "run_once", counted))
        running.run_on_loop(lambda: running.loop.call_later(0.1, done.set))
        assert done.wait(TIMEOUT)
        assert iterations[0] < 10
        running.run_on_loop(proxy.remove_all_toxics)
        running.wait_until(lambda: not proxy.flows, "the next read finds the reset")


def test_drop_first_resets_first_connections() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("drop_first", "up:2"))
        for _ in range(2):
            assert_connection_reset(proxy)
        with connect(proxy.listen) as client:
            assert exchange(client, b"third") == b"third"


def test_toxicity_and_clients_select_connections() -> None:
    with tcp_server(echo) as server, RunningProxies(seed=3) as running:
        proxy = running.proxy(
            "tcp://127.0.0.1:0",
            server,
            ("limit_data", "down:0,toxicity=50%,name=half"),
            ("limit_data", "down:0,clients=192.0.2.0/24,name=others"),
        )
        cut = 0
        for _ in range(40):
            with connect(proxy.listen) as client:
                cut += exchange(client, b"x") == b""
        # Half of 40, within 3 standard deviations. The seed is fixed, so the result is always the same.
        assert 10 <= cut <= 30
        assert running.run_on_loop(lambda: proxy.toxic_counters["half"].closed) == cut
        assert running.run_on_loop(lambda: proxy.toxic_counters["others"].seen) == 0


def test_disabled_proxy_refuses_and_enabled_proxy_reuses_port() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server)
        with connect(proxy.listen) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            running.run_on_loop(proxy.disable)
            assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.listen)
        running.run_on_loop(proxy.enable)
        with connect(proxy.listen) as client:
            assert exchange(client, b"back") == b"back"


def test_many_concurrent_connections() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("latency", "10ms"))
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(proxy.listen)) for _ in range(100)]
            for number, client in enumerate(clients):
                client.sendall(number.to_bytes(4))
            for number, client in enumerate(clients):
                assert client.recv(100) == number.to_bytes(4)
            assert running.run_on_loop(lambda: len(proxy.flows)) == 100
        running.wait_until(lambda: not proxy.flows, "all connections are closed")


def test_latency_is_exact_to_a_millisecond() -> None:
    """Of 50 round trips with 5 ms each way, none is faster than 10 ms, and the fastest is accurate."""
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("latency", "5ms"))
        with connect(proxy.listen) as client:
            times = []
            for _ in range(50):
                started = time.perf_counter()
                client.sendall(b"x")
                client.recv(1)
                times.append(time.perf_counter() - started)
        assert 0.010 <= min(times) < 0.0115
