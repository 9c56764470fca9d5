"""Reload, take over and stop a server under load: no connection is refused, lost or wrongly answered."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothends.client.blocking import Connection, connect
from bothends.engines import registry
from bothends.errors import ConnectionLost
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running

EVENT_LOOPS = ["select", "poll", "epoll", "asyncio", "uvloop", "native"]
REPEATS = 20
CLIENTS = 4

SERVICE = """from bothends import message

@message
def count(text: bytes) -> bytes:
    return text + b" " + b"%d"
"""


PID_SERVICE = """import os
from bothends import message

@message
def who(text: bytes) -> bytes:
    return b"%d" % os.getpid()
"""


class Load:
    """Clients that connect, send a few requests and close, repeatedly, in threads."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self.faults: list[str] = []
        self.answers: set[bytes] = set()
        self.count = 0
        self._threads = [
            threading.Thread(target=self._client_loop, args=(number,)) for number in range(CLIENTS)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client_loop(self, number: int) -> None:
        requests = 0
        try:
            while not self._stop.is_set():
                with socket.create_connection(("127.0.0.1", self._port), timeout=20) as sock:
                    lines = sock.makefile("rwb", buffering=0)
                    for _ in range(5):
                        requests += 1
                        request = b"%d-%d" % (number, requests)
                        lines.write(request + b"\n")
                        answer = lines.readline()
                        assert answer.startswith(request + b" "), f"{request!r} got {answer!r}"
                        self.answers.add(answer.split()[1])
                        self.count += 1
        except (OSError, AssertionError) as error:
            self.faults.append(f"client {number}, request {requests}: {error!r}")
            self._stop.set()


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[Running, int]]:
    """Run `bothends serve`. Yields the process and its port."""
    with Running([*BOTHENDS, "serve", "--quiet", *arguments]) as server:
        yield server, int(server.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1])


def write(path: Path, version: int) -> None:
    """Replace the service file atomically: a reader sees the old version or the new one."""
    new = path.with_suffix(".new")
    new.write_text(SERVICE % version)
    new.replace(path)


def served_version(port: int) -> bytes:
    with connect(f"tcp://127.0.0.1:{port}") as connection:
        return connection.request(b"version?").split()[1]


def wait_for_version(port: int, answer: bytes) -> None:
    """Send requests until 25 consecutive answers have the version, so that all processes have reloaded.

    Each process reloads by itself, and none reports when the last one has.
    """
    consecutive = 0
    for _ in range(2000):
        consecutive = consecutive + 1 if served_version(port) == answer else 0
        if consecutive == 25:
            return
    pytest.fail(f"not all processes answer {answer!r}")


@pytest.mark.slow
@pytest.mark.parametrize("engine", EVENT_LOOPS)
def test_reloaded_twenty_times_under_load(engine: str, tmp_path: Path) -> None:
    if reason := registry.load(engine).unavailable_reason():
        pytest.skip(reason)
    path = tmp_path / "count.py"
    write(path, 0)
    with serving(f"{path}:count", "tcp://127.0.0.1:0", "--engine", engine) as (server, port):
        with Load(port) as load:
            for version in range(1, REPEATS + 1):
                write(path, version)
                server.process.send_signal(signal.SIGHUP)
                server.nth_error_line(rb"reloaded count: .*", version)
        assert not load.faults
        assert load.count > REPEATS
        assert served_version(port) == b"%d" % REPEATS
        assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("engine", EVENT_LOOPS)
def test_taken_over_twenty_times_under_load(engine: str, tmp_path: Path) -> None:
    if reason := registry.load(engine).unavailable_reason():
        pytest.skip(reason)
    path, socket_path = tmp_path / "count.py", tmp_path / "takeover"
    with contextlib.ExitStack() as stack:
        write(path, 0)
        common = [f"{path}:count", "--engine", engine, "--takeover", str(socket_path)]
        server, port = stack.enter_context(serving(*common, "tcp://127.0.0.1:0"))
        with Load(port) as load:
            for version in range(1, REPEATS + 1):
                write(path, version)
                old = server
                server, same = stack.enter_context(serving(*common, "tcp://127.0.0.1:0"))
                assert same == port
                assert old.wait() == 0, old.stderr
        assert not load.faults
        assert load.count > REPEATS
        assert served_version(port) == b"%d" % REPEATS
        assert server.stop() == 0
    assert not socket_path.exists()


@pytest.mark.spread("engine", one_in=3)
@pytest.mark.parametrize("engine", ["epoll", "uvloop", "native", "threads", "prefork", "fork", "iterative"])
def test_reload_uses_new_version_and_keeps_old_on_error(engine: str, tmp_path: Path) -> None:
    if reason := registry.load(engine).unavailable_reason():
        pytest.skip(reason)
    path = tmp_path / "count.py"
    write(path, 1)
    with serving(f"{path}:count", "tcp://127.0.0.1:0", "--engine", engine) as (server, port):
        assert served_version(port) == b"1"
        path.write_text("not valid Python")
        server.process.send_signal(signal.SIGHUP)
        server.nth_error_line(
            rb"reload failed, still serving the old service: .*count\.py:1: SyntaxError.*", 1
        )
        assert served_version(port) == b"1"
        write(path, 2)
        server.process.send_signal(signal.SIGHUP)
        server.nth_error_line(rb"reloaded count: .*", 1)
        wait_for_version(port, b"2")
        assert server.stop() == 0


def test_every_worker_reloads(tmp_path: Path) -> None:
    path = tmp_path / "count.py"
    write(path, 1)
    with serving(f"{path}:count", "tcp://127.0.0.1:0", "--workers", "3") as (server, port):
        assert served_version(port) == b"1"
        write(path, 2)
        server.process.send_signal(signal.SIGHUP)
        server.nth_error_line(rb"reloaded count: .*", 1)
        wait_for_version(port, b"2")
        assert server.stop() == 0
        assert str(server.stderr).count("reloaded") == 1  # logged once, not by each worker


def test_unix_socket_takeover_keeps_file(tmp_path: Path) -> None:
    path, socket_path = tmp_path / "a.sock", tmp_path / "takeover"
    arguments = ["upper", f"unix://{path}", "tcp://127.0.0.1:0", "--takeover", str(socket_path)]
    with serving(*arguments) as (old, _), connect(f"unix://{path}") as before:
        assert before.request(b"a") == b"A"
        with serving(*arguments) as (new, _):
            assert before.receive() == b""  # drained
            before.close()
            assert old.wait() == 0, old.stderr
            with connect(f"unix://{path}") as after:
                assert after.request(b"b") == b"B"
            assert new.stop() == 0
    assert not path.exists()


def test_failed_takeover_leaves_server_running(tmp_path: Path) -> None:
    socket_path = tmp_path / "takeover"
    with serving("upper", "tcp://127.0.0.1:0", "--takeover", str(socket_path)) as (server, port):
        with connect(f"unix+seqpacket://{socket_path}") as client:
            assert client.receive().startswith(b"[[")
        with connect(f"tcp://127.0.0.1:{port}") as connection:
            assert connection.request(b"still here") == b"STILL HERE"
        assert server.stop() == 0


def test_two_hundred_requests_in_flight_survive_sigterm() -> None:
    with contextlib.ExitStack() as stack:
        server, port = stack.enter_context(serving("upper", "tcp://127.0.0.1:0"))
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(200)]
        for number, client in enumerate(clients):
            client.sendall(b"request %d" % number)
        server.process.terminate()
        for number, client in enumerate(clients):
            assert client.recv(1024) == b"REQUEST %d" % number
            assert client.recv(1024) == b""
            client.close()
        assert server.wait() == 0


def test_killed_worker_loses_only_own_connections(tmp_path: Path) -> None:
    path = tmp_path / "who.py"
    path.write_text(PID_SERVICE)
    with contextlib.ExitStack() as stack:
        server, port = stack.enter_context(serving(f"{path}:who", "tcp://127.0.0.1:0", "--workers", "4"))
        workers: dict[bytes, Connection] = {}
        for _ in range(3):  # a stopped worker accepts nothing, so the next client gets another
            client = stack.enter_context(connect(f"tcp://127.0.0.1:{port}"))
            pid = client.request(b"who?")
            workers[pid] = client
            os.kill(int(pid), signal.SIGSTOP)
        assert len(workers) == 3
        for pid in workers:
            os.kill(int(pid), signal.SIGCONT)
        victim, *others = workers
        os.kill(int(victim), signal.SIGKILL)
        server.nth_error_line(rb"worker %s killed by signal 9" % victim, 1)
        with pytest.raises(ConnectionLost):
            workers[victim].request(b"who?")
        for pid in others:
            assert workers[pid].request(b"who?") == pid
        assert server.stop() == 0
