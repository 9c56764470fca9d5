"""The lifecycle of a server: bind all or nothing, run, drain, stop, and release everything."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bothends import Endpoint, message, serve
from bothends.client.blocking import connect
from bothends.engines import registry
from bothends.engines.base import Limits
from bothends.errors import ConnectionLost, SystemCallFailed, UnknownName, UnsupportedCombination, UsageError
from bothends.events import Event, Listening, Stopped
from bothends.server import Server


@message
def shout(text: bytes) -> bytes:
    return text.upper() + b"!"


def test_background_server_on_several_endpoints(tmp_path: Path) -> None:
    path = tmp_path / "shout.sock"
    with serve(shout, "tcp://127.0.0.1:0", "udp://127.0.0.1:0", f"unix://{path}") as server:
        assert [endpoint.scheme for endpoint in server.endpoints] == ["tcp", "udp", "unix"]
        assert all(endpoint.port for endpoint in server.endpoints[:2])
        for endpoint in server.endpoints:
            with connect(endpoint) as connection:
                assert connection.request(b"hello") == b"HELLO!"
    assert not path.exists()
    with pytest.raises(SystemCallFailed):
        connect(server.endpoints[0])


def test_one_port_for_both_families() -> None:
    with serve("echo", "tcp://localhost:0") as server:
        assert len({endpoint.port for endpoint in server.endpoints}) == 1


def test_bind_failure_closes_all_listeners(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = tmp_path / "first.sock"
        with pytest.raises(SystemCallFailed, match="EADDRINUSE"):
            serve("echo", f"unix://{path}", f"tcp://127.0.0.1:{port}")
        assert not path.exists()


def test_close_without_run_releases_sockets(tmp_path: Path) -> None:
    path = tmp_path / "never.sock"
    server = serve("echo", f"unix://{path}")
    assert path.exists()
    server.close()
    server.close()
    assert not path.exists()


@pytest.mark.parametrize(
    ("service", "endpoint", "engine", "reason"),
    [
        ("chat", "udp://127.0.0.1:0", "epoll", "service chat does not support"),
        ("chat", "tcp://127.0.0.1:0", "fork", "engine fork does not support service chat"),
        ("echo", "udp://127.0.0.1:0", "threads", "engine threads does not support"),
        ("echo", "udp://127.0.0.1:0", "fork", "engine fork does not support"),
    ],
)
def test_unsupported_combination_is_rejected_before_bind(
    service: str, endpoint: str, engine: str, reason: str
) -> None:
    with pytest.raises(UnsupportedCombination, match=reason):
        serve(service, endpoint, engine=engine)


def test_inherited_descriptor_of_unsupported_type_is_rejected() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    with pytest.raises(UnsupportedCombination, match="engine threads"):
        serve("echo", f"fd://{sock.detach()}", engine="threads")


def test_push_service_with_workers_is_rejected() -> None:
    with pytest.raises(UnsupportedCombination, match="one process"):
        serve("chat", "tcp://127.0.0.1:0", workers=2)


def test_iterative_engine_rejects_when_full_refuse() -> None:
    with pytest.raises(UnsupportedCombination, match="rejecting connections at the limit"):
        serve("echo", "tcp://127.0.0.1:0", engine="iterative", limits=Limits(when_full="refuse"))


def test_threads_engine_rejects_when_full_evict() -> None:
    with pytest.raises(UnsupportedCombination, match="use select, poll or epoll"):
        serve("echo", "tcp://127.0.0.1:0", engine="threads", limits=Limits(when_full="evict"))


@pytest.mark.parametrize("arguments", [{"engine": "prefork"}, {"workers": 2}])
def test_inherited_connection_with_several_processes_is_rejected(arguments: dict[str, Any]) -> None:
    peer, inherited = socket.socketpair()
    with peer, pytest.raises(UnsupportedCombination, match="use the same connection"):
        serve("echo", f"fd://{inherited.detach()}", **arguments)


def test_unknown_name_suggests_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'epoll'"):
        serve("echo", "tcp://127.0.0.1:0", engine="epol")
    with pytest.raises(UnknownName, match="did you mean 'upper'"):
        serve("uper", "tcp://127.0.0.1:0")
    with pytest.raises(UsageError, match="no endpoint"):
        Server("echo", [])


def test_observer_receives_listening_and_stopped() -> None:
    events: list[Event] = []
    with serve("echo", "tcp://127.0.0.1:0", observe=events.append):
        pass
    assert isinstance(events[0], Listening)
    assert isinstance(events[0].endpoint, Endpoint)
    assert isinstance(events[-1], Stopped)


def test_drain_completes_open_conversation() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serve("upper", "tcp://127.0.0.1:0"))
        connection = stack.enter_context(connect(server.endpoints[0]))
        assert connection.exchange(b"before") == b"BEFORE"


def test_server_leaks_no_descriptors_or_threads() -> None:
    def round_trip() -> None:
        with serve("upper", "tcp://127.0.0.1:0") as server, connect(server.endpoints[0]) as connection:
            assert connection.request(b"x") == b"X"

    round_trip()
    before, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(5):
        round_trip()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert threading.active_count() == threads


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a program with `serve(...).run()`; yield the process and the endpoint that it prints."""
    program = (
        "import sys; from bothends import serve\n"
        f"server = serve('upper', 'tcp://127.0.0.1:0', {', '.join(arguments)})\n"
        "print(server.endpoints[0], flush=True); server.run(); print('stopped', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains_and_run_returns(number: int) -> None:
    with running() as (process, endpoint):
        with connect(endpoint) as connection:
            assert connection.request(b"x") == b"X"
            process.send_signal(number)
            assert connection.receive() == b""
        assert process.stdout is not None
        assert process.stdout.read() == "stopped\n"
        assert process.wait(10) == 0


@pytest.mark.parametrize("engine", ["epoll", "asyncio", "threads", "pool"])
def test_abort_resets_connections_and_closes_listeners(engine: str) -> None:
    with serve(shout, "tcp://127.0.0.1:0", engine=engine, limits=Limits(drain=60)) as server:
        with connect(server.endpoints[0], timeout=20) as connection:
            assert connection.request(b"hello") == b"HELLO!"
            server.abort()
            assert server.is_draining
            with pytest.raises(ConnectionLost):
                connection.receive_line()
        assert server._thread is not None
        server._thread.join(20)
        with pytest.raises(SystemCallFailed):
            connect(server.endpoints[0])


def test_error_of_a_background_server_is_raised_at_its_end() -> None:
    class Broken(registry.load("epoll")):  # type: ignore[misc]
        name = "broken"

        def run(self) -> None:
            raise RuntimeError("the engine is broken")

    with (
        pytest.raises(RuntimeError, match="the engine is broken"),
        serve(shout, "tcp://127.0.0.1:0", engine=Broken),
    ):
        pass


def test_second_signal_aborts() -> None:
    with (
        running("limits=__import__('bothends.engines.base').engines.base.Limits(drain=600)") as (
            process,
            endpoint,
        ),
        connect(endpoint) as connection,
    ):
        assert connection.request(b"x") == b"X"
        process.send_signal(signal.SIGTERM)
        assert connection.receive() == b""  # drained; the server now waits for the client's FIN
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize("engine", ["epoll", "uvloop", "native", "threads", "iterative"])
def test_workers_share_port_and_exit(engine: str) -> None:
    if reason := registry.load(engine).unavailable_reason():
        pytest.skip(reason)
    with running(f"engine={engine!r}", "workers=3") as (process, endpoint):
        for number in range(12):
            with connect(endpoint) as connection:
                assert connection.request(b"n%d" % number) == b"N%d" % number
        process.terminate()
        assert process.wait(10) == 0
    with pytest.raises(SystemCallFailed):
        connect(endpoint)
