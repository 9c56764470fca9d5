"""The plugin for pytest, used by tests of its own (pytester)."""

from __future__ import annotations

import pytest

from tests.tools import needs_tool

pytest_plugins = ["pytester"]

HEAD = """
import contextlib
import socket
import sys
import pytest
from bothends import errors, message
from bothends.pytest_plugin import BadPath, PathFactory, PeerFactory, ServerHandle, ServerFactory

def ask(address, request=b"hello\\n"):
    with socket.create_connection(address, 5) as client:
        client.sendall(request)
        with contextlib.suppress(OSError):  # it was reset
            client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(100), b""))
"""


@pytest.fixture(autouse=True)
def plugin_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


def run(pytester: pytest.Pytester, body: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(HEAD + body)
    plugin = ("-p", "bothends.pytest_plugin.fixtures", "-p", "no:cacheprovider")
    return pytester.runpytest_inprocess(*plugin, *options)


def test_servers_of_services_and_functions(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@message
def shout(text: bytes) -> bytes:
    return text.upper() + b"!"

def test_name(bothends_server: ServerFactory) -> None:
    server = bothends_server("upper")
    assert ask(server.address) == b"HELLO\\n"
    assert server.url == f"tcp://127.0.0.1:{server.port}"
    with server.connect() as client:
        assert client.request(b"again") == b"AGAIN"

def test_function_on_engine(bothends_server: ServerFactory) -> None:
    server = bothends_server(shout, "tcp://127.0.0.1:0", "udp://127.0.0.1:0", engine="epoll")
    assert ask(server.address) == b"HELLO!\\n"
    assert [each.scheme for each in server.endpoints] == ["tcp", "udp"]

def test_stops_with_the_test(bothends_server: ServerFactory, request) -> None:
    request.config.port = bothends_server("upper").address

def test_stopped(request) -> None:
    with pytest.raises(ConnectionRefusedError):
        ask(request.config.port)
""",
    )
    result.assert_outcomes(passed=4)


SERVER = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    print("ready", flush=True)
    while True:
        with listener.accept()[0] as sock:
            sock.sendall(sock.recv(100).upper())
"""


def test_command_is_awaited_and_ended(pytester: pytest.Pytester) -> None:
    pytester.makefile(".py", slow_server=SERVER)
    result = run(
        pytester,
        """
def test_command(bothends_server: ServerFactory, request) -> None:
    server = bothends_server(command=[sys.executable, "slow_server.py", "{port}"])
    assert ask(server.address) == b"HELLO\\n"  # the first connection: none was used to see that it listens
    assert server.output == "ready\\n"
    request.config.pid = server.pid

def test_ended(request) -> None:
    import os
    with pytest.raises(ProcessLookupError):
        os.kill(request.config.pid, 0)

def test_command_that_exits(bothends_server: ServerFactory) -> None:
    bothends_server(command=[sys.executable, "-c", "print('no port'); raise SystemExit(3)"])

def test_command_that_never_listens(bothends_server: ServerFactory) -> None:
    bothends_server(command=[sys.executable, "-c", "import signal; signal.pause()"], timeout=0.1)
""",
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["E*exited with 3", "E*no port", "E*does not listen after 0.1 s"])


def test_peers_misbehave(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_reset(bothends_peer: PeerFactory) -> None:
    with pytest.raises(ConnectionResetError):
        ask(bothends_peer("reset").address)

@pytest.mark.parametrize(("behaviour", "expected"), [
    ("close", b""), ("cut", b"abc"), ("dripped", b"abcdef"), ("joined", b"abcdefabcdef"),
])
def test_reply(bothends_peer: PeerFactory, behaviour, expected) -> None:
    assert ask(bothends_peer(behaviour, reply=b"abcdef", interval=0).address) == expected

def test_silent_and_endless(bothends_peer: PeerFactory) -> None:
    with socket.create_connection(bothends_peer("silent").address, 0.05) as client:
        client.sendall(b"x")
        with pytest.raises(TimeoutError):
            client.recv(1)
    with socket.create_connection(bothends_peer("endless").address, 5) as client:
        client.sendall(b"x")
        assert sum(len(client.recv(10_000)) for _ in range(1_000)) > 1_000

def test_refuse(bothends_peer: PeerFactory) -> None:
    peer = bothends_peer("refuse")
    with pytest.raises(ConnectionRefusedError):
        ask(peer.address)
    with pytest.raises(OSError, match="in use"):  # no other process can get the port
        socket.create_server(peer.address)

def test_own(bothends_peer: PeerFactory) -> None:
    def greet(sock: socket.socket) -> None:
        sock.sendall(b"banner " + sock.recv(100))

    assert ask(bothends_peer(greet).address) == b"banner hello\\n"
""",
    )
    result.assert_outcomes(passed=8)


def test_path_is_bad_and_heals(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
import time

def test_path(bothends_server: ServerFactory, bothends_path: PathFactory) -> None:
    server = bothends_server("upper", "tcp://127.0.0.1:0", "udp://127.0.0.1:0")
    path = bothends_path(server, latency="down:60ms")
    start = time.monotonic()
    assert ask(path.address) == b"HELLO\\n"
    assert time.monotonic() - start >= 0.06
    path.heal()
    path.add(reset_peer="0ms")
    with pytest.raises(ConnectionResetError):
        ask(path.address)
    path.cut()
    with pytest.raises(ConnectionRefusedError):
        ask(path.address)
    path.restore()
    path.heal()
    assert ask(path.address) == b"HELLO\\n"
    lossy = bothends_path(server.endpoints[1], loss="up:100%")
    with lossy.connect(timeout=0.05) as client, pytest.raises(errors.TimeoutExpired):
        client.request(b"lost")

def test_wrong(bothends_server: ServerFactory, bothends_path: PathFactory) -> None:
    with pytest.raises(errors.BothendsError, match="loss"):
        bothends_path(bothends_server("upper"), loss="10%")  # no toxic for a stream
""",
    )
    result.assert_outcomes(passed=2)


def test_trace_of_failed_test_is_kept(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_fails(bothends_server: ServerFactory) -> None:
    assert ask(bothends_server("upper").address) == b"hello"

def test_passes(bothends_server: ServerFactory) -> None:
    assert ask(bothends_server("upper").address) == b"HELLO\\n"
""",
        "--bothends-traces=kept",
    )
    result.assert_outcomes(passed=1, failed=1)
    (kept,) = (pytester.path / "kept").iterdir()
    assert kept.name.endswith("test_fails-server-1.trace")
    assert b'"result": 6' in kept.read_bytes()  # HELLO and LF
    result.stdout.fnmatch_lines(["*bothends: traces kept*", f"bothends trace --open {kept}"])


@pytest.mark.slow
@needs_tool("strace")
def test_programs_are_traced(pytester: pytest.Pytester) -> None:
    client = (
        "import socket, sys; c = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); "
        "c.sendall(b'hi'); c.shutdown(1); print(c.recv(100).decode())"
    )
    pytester.makefile(".py", upper_server=SERVER, upper_client=client)
    result = run(
        pytester,
        """
from bothends.pytest_plugin import TraceRunner
from bothends.sockets.free_port import free_port

def test_trace(bothends_trace: TraceRunner) -> None:
    port = str(free_port())
    done = bothends_trace(
        server=[sys.executable, "upper_server.py", port],
        client=[sys.executable, "upper_client.py", "{port}"],
        options=["--calls-only"],
    )
    assert done.status == 0
    assert "HI" in done.output
    assert any(row["call"] == "accept4" for row in done.ask("calls"))
    assert isinstance(done.findings(), list)
    raise AssertionError("kept")
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*kept", "bothends trace --open *run-1.trace"])


def test_wire_loses_packets(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
from bothends.pytest_plugin import WireRunner

def test_wire(bothends_wire: WireRunner) -> None:
    code = "import sys; print('in a host', sys.stdin.read())"
    done = bothends_wire({"one": "true", "two": [sys.executable, "-c", code]}, stdin="text", delay="1ms")
    assert done.returncode == 0
    assert "in a host text" in done.stdout
""",
    )
    outcomes = result.parseoutcomes()
    assert outcomes in ({"passed": 1}, {"skipped": 1})
