"""The bothends client, as command and library, against servers as in a first course on sockets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from bothends import connect
from bothends.errors import ConnectionLost
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.programs import Programs, needs_compiler
from tests.interop.running import TIMEOUT, Running, run
from tests.tools import needs_tool

TIME = rb"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}"


@dataclass(frozen=True)
class CourseServer:
    """A server, its endpoint's scheme, and the expected answers to `input`.

    `sent` is the answer to `--send`, `piped` the answer to the same input with a newline in a pipe, followed
    by EOF. `shown` is a pattern for a line that the server itself must print.
    """

    program: str
    scheme: str
    input: bytes
    sent: bytes
    piped: bytes
    shown: bytes = b""

    def __str__(self) -> str:
        return self.program.replace(" ", "-")


SERVERS = [
    CourseServer("tcp_server.c", "tcp", b"hello", b"HELLO\n", b"HELLO\n"),
    CourseServer(
        "buffer512_server.c",
        "tcp",
        b"hello",
        b"HELLO\n".ljust(512, b"\0"),
        b"HELLO\n".ljust(512, b"\0"),
        b"6 bytes: hello",
    ),
    CourseServer(
        "buffer80_server.c",
        "tcp",
        b"exit",
        b"EXIT\n".ljust(80, b"\0"),
        b"EXIT\n".ljust(80, b"\0"),
        b"From client: exit",
    ),
    CourseServer("udp_server.c", "udp", b"hello", b"HELLO", b"HELLO\n"),
    CourseServer(
        "udp1024_server.c",
        "udp",
        b"hello",
        b"HELLO".ljust(1024, b"\0"),
        b"HELLO".ljust(1024, b"\0") + b"\n",
        rb"5 bytes from 127\.0\.0\.1: hello",
    ),
    CourseServer("fork_server.c", "tcp", b"hello", b"HELLO\n", b"HELLO\n", rb"127\.0\.0\.1#\d+ has gone"),
    CourseServer("unix_server.c", "unix", b"hello", b"HELLO\n", b"HELLO\n"),
    CourseServer("unix_dgram_server.c", "unix+dgram", b"hello", b"HELLO", b"HELLO\n"),
    CourseServer(
        "one_read.c tcp",
        "tcp",
        b"x" * 2559,
        b"x" * 2559 + b"\n",
        b"x" * 2559 + b"\n",
        b"one read, 2560 bytes",
    ),
    CourseServer("one_read.c udp", "udp", b"x" * 512, b"x" * 512, b"x" * 512 + b"\n", b"one read, 512 bytes"),
    CourseServer("OneReadServer.java", "tcp", b"hello", b"HELLO\n", b"HELLO\n"),
    CourseServer(
        "PacketServer.java", "udp", b"hello", b"HELLO".ljust(1024, b"\0"), b"HELLO".ljust(1024, b"\0") + b"\n"
    ),
    CourseServer("ThreadedServer.java", "tcp", b"hello", b"HELLO\n", b"HELLO\n", rb"127\.0\.0\.1#\d+: hello"),
    CourseServer("tcp_server.py", "tcp", "größe".encode(), "GRÖSSE\n".encode(), "GRÖSSE\n".encode()),
    CourseServer("udp_server.py", "udp", "größe".encode(), "GRÖSSE".encode(), "GRÖSSE\n".encode()),
    CourseServer(
        "hello_server.py", "tcp", b"hello", b"back to ya client", b"back to ya client", b"client says: hello"
    ),
    CourseServer(
        "reply_server.py",
        "tcp",
        b"hello",
        b"You said: hello\n",
        b"You said: hello\n",
        rb"127\.0\.0\.1#\d+: hello",
    ),
    CourseServer(
        "threaded_server.py", "tcp", b"hello", b"HELLO\n", b"HELLO\n", rb"127\.0\.0\.1#\d+ has gone"
    ),
    CourseServer("select_server.py", "tcp", b"hello", b"HELLO\n", b"HELLO\n"),
    CourseServer("drip_server.py", "tcp", b"byte by byte", b"BYTE BY BYTE\n", b"BYTE BY BYTE\n"),
]


@pytest.fixture(
    params=[
        pytest.param(each, id=str(each), marks=needs_compiler(each.program.split()[0])) for each in SERVERS
    ]
)
def server(request: pytest.FixtureRequest) -> CourseServer:
    found: CourseServer = request.param
    return found


def start(name: str, programs: Programs, folder: Path) -> Running:
    """Start a server, on any port or on a path in `folder`."""
    program, *arguments = name.split()
    path = [str(folder / "socket")] if program.startswith("unix") else []
    return Running([*programs.command(program), *arguments, *path])


def endpoint_of(running: Running, scheme: str) -> str:
    """Return the endpoint that the server prints."""
    if scheme.startswith("unix"):
        return f"{scheme}://{running.line(b'listening on (.+)')[1].decode()}"
    port = running.line(rb"port (\d+)")[1].decode()
    return f"{scheme}://127.0.0.1:{port}"


@pytest.mark.spread("server", one_in=3)
def test_one_request(server: CourseServer, programs: Programs, short_path: Path) -> None:
    with start(server.program, programs, short_path) as running:
        endpoint = endpoint_of(running, server.scheme)
        assert run([*BOTHENDS, "connect", endpoint, "--send", server.input.decode()]) == server.sent
        if server.shown:
            running.line(server.shown)


@pytest.mark.spread("server", one_in=3)
def test_a_pipe(server: CourseServer, programs: Programs, short_path: Path) -> None:
    with start(server.program, programs, short_path) as running:
        endpoint = endpoint_of(running, server.scheme)
        assert run([*BOTHENDS, "connect", endpoint], server.input + b"\n") == server.piped
        if server.shown:
            running.line(server.shown)


def test_blocking_client(server: CourseServer, programs: Programs, short_path: Path) -> None:
    with start(server.program, programs, short_path) as running:
        with connect(endpoint_of(running, server.scheme), timeout=TIMEOUT) as connection:
            if server.scheme in ("udp", "unix+dgram"):
                assert connection.request(server.input) == server.sent
            else:
                assert connection.exchange(server.input + b"\n") == server.piped
        if server.shown:
            running.line(server.shown)


@needs_tool("cc")
def test_without_a_newline(programs: Programs, short_path: Path) -> None:
    with start("tcp_server.c", programs, short_path) as running:
        endpoint = endpoint_of(running, "tcp")
        assert run([*BOTHENDS, "connect", endpoint, "--send", "hello", "--no-newline"]) == b"HELLO"


@needs_tool("cc")
def test_a_server_that_only_prints(programs: Programs, short_path: Path) -> None:
    with start("select_server.c", programs, short_path) as running:
        endpoint = endpoint_of(running, "tcp")
        assert run([*BOTHENDS, "connect", endpoint], b"print this\n") == b""
        socket = running.line(rb"socket (\d+): print this")[1]
        running.line(b"socket %b: bye" % socket)


@needs_tool("cc")
def test_a_conversation_in_buffers_of_80_bytes(programs: Programs, short_path: Path) -> None:
    with start("buffer80_server.c", programs, short_path) as running:
        with connect(endpoint_of(running, "tcp"), timeout=TIMEOUT) as connection:
            for line in (b"hello\n", b"again\n", b"exit\n"):
                connection.send(line.ljust(80, b"\0"))
                assert connection.receive_exactly(80) == line.upper().ljust(80, b"\0")
            assert connection.receive() == b""
        running.line(rb"Server exit\.")
        assert running.wait() == 0


@needs_tool("javac")
def test_server_that_answers_lines_and_never_closes(programs: Programs, short_path: Path) -> None:
    with start("LineServer.java", programs, short_path) as running:
        endpoint = endpoint_of(running, "tcp")
        with connect(endpoint, timeout=TIMEOUT) as connection:
            assert connection.request("hello from a library") == b"HELLO FROM A LIBRARY"
        assert run([*BOTHENDS, "connect", endpoint, "--send", "hello", "-q", "0.1"]) == b"HELLO\n"


def test_client_exits_after_answer_from_server_that_keeps_open(programs: Programs, short_path: Path) -> None:
    with start("keeping_server.py", programs, short_path) as running:
        endpoint = endpoint_of(running, "tcp")
        assert run([*BOTHENDS, "connect", endpoint, "--send", "hello", "-q", "0.1"]) == b"HELLO\n"
        with connect(endpoint, timeout=TIMEOUT) as connection:
            assert connection.request("hello") == b"HELLO"


def test_server_that_closes_without_answer(programs: Programs, short_path: Path) -> None:
    with start("mute_server.py", programs, short_path) as running:
        endpoint = endpoint_of(running, "tcp")
        assert run([*BOTHENDS, "connect", endpoint], b"hello\n") == b""
        with connect(endpoint, timeout=TIMEOUT) as connection, pytest.raises(ConnectionLost):
            connection.request("hello")


def test_clock_server(programs: Programs, short_path: Path) -> None:
    with start("udp_clock_server.py", programs, short_path) as running:
        endpoint = endpoint_of(running, "udp")
        assert re.fullmatch(TIME, run([*BOTHENDS, "connect", endpoint, "--send", ""]))
        with connect(endpoint, timeout=TIMEOUT) as connection:
            assert re.fullmatch(TIME, connection.request(b""))
