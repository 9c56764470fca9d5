"""The asyncio client: as the blocking one, on each event loop, and cancellation and closing."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from bothends.client.asyncio import AsyncConnection, connect
from bothends.endpoints import Endpoint
from bothends.errors import (
    ConnectionLost,
    EndpointError,
    SystemCallFailed,
    TimeoutExpired,
    UnsupportedCombination,
)
from tests.client import peers

Runner = Callable[[Awaitable[None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    """Return a function that runs a coroutine on this kind of loop."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run_coroutine(coroutine: Awaitable[None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(peers.TIMEOUT):
                await coroutine

        with asyncio.Runner(loop_factory=factory, debug=True) as runner:
            runner.run(bounded())

    return run_coroutine


async def wait_until(condition: Callable[[], bool]) -> None:
    """Run the loop until a condition holds."""
    for _ in itertools.count():
        if condition():
            return
        await asyncio.sleep(0)


def test_request_and_iteration_return_lines(run: Runner) -> None:
    async def client(endpoint: Endpoint) -> None:
        async with connect(str(endpoint)) as connection:
            assert await connection.request("hello") == b"HELLO"
            await connection.send_line(b"one\ntwo")
            assert await connection.receive_line() == b"ONE"
            assert connection.peer.port == endpoint.port
            connection.half_close()
            assert [line async for line in connection] == [b"TWO"]
            with pytest.raises(ConnectionLost) as caught:
                await connection.receive_line()
            assert caught.value.errno == 0
        assert connection.socket.fileno() < 0

    with peers.tcp_peer(peers.upper_lines_bytewise) as endpoint:
        run(client(endpoint))


def test_exchange_large_data_half_closes_without_deadlock(run: Runner) -> None:
    data = os.urandom(8_000_000)

    async def client(endpoint: Endpoint) -> None:
        connection = await connect(endpoint)
        async with connection:
            assert await connection.exchange(data) == data
            with pytest.raises(UnsupportedCombination):
                await connection.send(b"more")

    with peers.tcp_peer(peers.echo) as endpoint:
        run(client(endpoint))


def test_concurrent_send_and_receive_are_allowed(run: Runner) -> None:
    data = os.urandom(4_000_000)

    async def client(endpoint: Endpoint) -> None:
        async with connect(endpoint) as connection:
            async with asyncio.TaskGroup() as group:
                group.create_task(connection.send(data))
                received = group.create_task(connection.receive_exactly(len(data)))
            assert received.result() == data

    with peers.tcp_peer(peers.echo) as endpoint:
        run(client(endpoint))


def test_concurrent_receive_is_rejected(run: Runner) -> None:
    async def client(endpoint: Endpoint) -> None:
        async with connect(endpoint) as connection:
            first = asyncio.create_task(connection.receive_line())
            await asyncio.sleep(0)
            with pytest.raises(UnsupportedCombination, match="at once"):
                await connection.receive_line()
            with pytest.raises(UnsupportedCombination, match="at once"):
                await connection.request("hello")
            await connection.send_line("hello")
            assert await first == b"HELLO"

    with peers.tcp_peer(peers.upper_lines) as endpoint:
        run(client(endpoint))


def test_receive_cancelled_keeps_buffered_data(run: Runner) -> None:
    async def client(endpoint: Endpoint) -> None:
        async with connect(endpoint) as connection:
            pending = asyncio.create_task(connection.receive_exactly(100))
            await wait_until(lambda: connection.core.receive_buffer.size > 0)
            pending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pending
            assert await connection.receive() == b"half"

    with peers.tcp_peer_held_open(lambda sock: sock.sendall(b"half")) as endpoint:
        run(client(endpoint))


def test_close_wakes_pending_receive(run: Runner) -> None:
    async def client(endpoint: Endpoint) -> None:
        connection = await connect(endpoint, timeout=None)
        pending = asyncio.create_task(connection.receive())
        await asyncio.sleep(0)
        connection.close()
        with pytest.raises(ConnectionLost) as caught:
            await pending
        assert caught.value.errno == errno.EBADF
        connection.close()

    with peers.tcp_peer(peers.read_without_replying) as endpoint:
        run(client(endpoint))


def test_receive_and_send_time_out(run: Runner) -> None:
    async def client(endpoint: Endpoint) -> None:
        async with connect(endpoint, timeout=0.1) as connection:
            with pytest.raises(TimeoutExpired):
                await connection.receive()
            with pytest.raises(TimeoutExpired, match="does not read"):
                await connection.send(bytes(50_000_000))

    with peers.tcp_peer_held_open(lambda _: None) as endpoint:
        run(client(endpoint))


def test_request_reset_by_peer_raises_connection_lost(run: Runner) -> None:
    async def client(endpoint: Endpoint) -> None:
        async with connect(endpoint) as connection:
            with pytest.raises(ConnectionLost) as caught:
                await connection.request("hello")
            assert caught.value.errno == errno.ECONNRESET

    with peers.tcp_peer(peers.reset_after_request) as endpoint:
        run(client(endpoint))


def test_connect_invalid_or_refused_endpoint_raises(run: Runner) -> None:
    async def client() -> None:
        with pytest.raises(EndpointError):
            await connect("tcp://127.0.0.1")
        with pytest.raises(SystemCallFailed) as caught:
            async with connect(Endpoint("tcp", host="127.0.0.1", port=peers.closed_port())):
                pass
        assert caught.value.errno == errno.ECONNREFUSED

    run(client())


def test_connect_cancelled_closes_socket(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    local, remote = socket.socketpair()
    proceed = threading.Event()
    opened = threading.Event()

    def slow_open(*_: object, **__: object) -> socket.socket:
        opened.set()
        proceed.wait(peers.TIMEOUT)
        return local

    monkeypatch.setattr("bothends.client.asyncio.open_stream", slow_open)

    async def client() -> None:
        connecting = asyncio.ensure_future(connect("tcp://127.0.0.1:1")._connect())
        await wait_until(opened.is_set)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        proceed.set()
        await wait_until(lambda: local.fileno() < 0)

    with remote:
        run(client())


def test_datagram_request_retries_and_keeps_large_datagrams(run: Runner, tmp_path: Path) -> None:
    received: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        received.append(data)
        return [data.upper()] if len(received) != 1 else []

    async def client(endpoint: Endpoint) -> None:
        async with connect(endpoint, timeout=6.0) as connection:
            assert await connection.request("hello", retries=3) == b"HELLO"
            assert await connection.request(b"") == b""
            await connection.send(bytes(60_000))
            assert await connection.receive(1) == bytes(60_000)

    with peers.udp_peer(answer) as endpoint:
        run(client(endpoint))
    received.clear()
    with peers.unix_datagram_peer(answer, tmp_path / "a.sock") as endpoint:
        run(client(endpoint))


def test_datagram_request_to_closed_port_is_refused(run: Runner) -> None:
    async def client() -> None:
        async with connect(
            Endpoint("udp", host="127.0.0.1", port=peers.closed_port(socket.SOCK_DGRAM))
        ) as connection:
            with pytest.raises(SystemCallFailed) as caught:
                await connection.request("hello")
            assert caught.value.errno == errno.ECONNREFUSED

    run(client())


def test_connection_wraps_any_socket(run: Runner) -> None:
    async def client() -> None:
        local, remote = socket.socketpair()
        with remote:
            async with AsyncConnection(local, Endpoint("unix", path="@pair")) as connection:
                remote.sendall(b"hello")
                assert await connection.receive() == b"hello"

    run(client())
