"""OpenBSD's nc, ncat, socat and curl at the other end: against our servers, and as servers for our client."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bothends.socket_table import read_table
from tests.interop.ours import BOTHENDS, EngineServers
from tests.interop.running import Running, run
from tests.tools import find_tool, needs_tool


def split(command: str) -> list[str]:
    """The words of a command, the tool by the path at which it was found."""
    tool, *words = shlex.split(command)
    return [find_tool(tool) or tool, *words]


# Their clients ------------------------------------------------------------------------------------

# Half-close, and read to our end; `{...}` are the places of `BothendsServer`.
PIPE_CLIENTS = [
    "nc -N {tcp}",
    "nc -N -U {unix}",
    "ncat {tcp}",
    "ncat -C {tcp}",
    "ncat -U {unix}",
    "socat - TCP:127.0.0.1:{port}",
    "socat - UNIX-CONNECT:{unix}",
]

# Stay, so that each line's answer is waited for. What sends datagrams waits for more of them, and curl
# doesn't mind the end of its input.
INTERACTIVE_CLIENTS = [
    "nc {tcp}",
    "nc -u {udp}",
    "nc -uU {unix_dgram}",
    "ncat {tcp}",
    "ncat -u {udp}",
    "ncat -uU {unix_dgram}",
    "socat - UDP:127.0.0.1:{udp_port}",
    "socat - UNIX-SENDTO:{unix_dgram},bind={own}",
    "curl -sN telnet://127.0.0.1:{port}",
]


def client_params(commands: list[str]) -> list[object]:
    """A parameter for each command, skipped where its tool isn't."""
    return [pytest.param(each, id=each, marks=needs_tool(each.split()[0])) for each in commands]


def client_command(servers: EngineServers, command: str, service: str) -> list[str]:
    """A client's command line for a service of ours."""
    if ("{udp" in command or "{unix_dgram}" in command) and not servers.engine.datagrams:
        pytest.skip(f"engine {servers.engine.name} has no datagrams")
    where = servers[service].addresses
    udp_port = where.get("udp", "").rpartition(" ")[2]
    return split(command.format(**where, udp_port=udp_port))


@pytest.mark.parametrize("command", client_params(PIPE_CLIENTS))
def test_external_client_in_pipe(servers: EngineServers, command: str) -> None:
    said = b"".join(b"line %d of what is said\n" % number for number in range(2000))
    heard = said.upper().replace(b"\n", b"\r\n") if " -C " in command else said.upper()
    assert run(client_command(servers, command, "upper"), said) == heard


@pytest.mark.parametrize("command", client_params(INTERACTIVE_CLIENTS))
def test_external_client_interactive(servers: EngineServers, command: str) -> None:
    Path(servers["upper"].addresses["own"]).unlink(missing_ok=True)  # socat's own name
    with Running(client_command(servers, command, "upper")) as client:
        for word in (b"hello", b"and again"):
            client.write_input(word + b"\n")
            client.line(word.upper())


# Their servers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExternalServer:
    """A server of theirs: `{path}` is a free path. It answers each line as `tr a-z A-Z` would, or echoes it,
    or (`interactive`) says what the test types. `scheme` is how we reach it.
    """

    command: str
    scheme: str = "tcp"
    interactive: bool = False

    def __str__(self) -> str:
        return self.command


INTERACTIVE_SERVERS = [
    ExternalServer("nc -lnv 127.0.0.1 0", interactive=True),
    ExternalServer("nc -lnvU {path}", "unix", interactive=True),
    ExternalServer("nc -lunv 127.0.0.1 0", "udp", interactive=True),
    ExternalServer("ncat -lnv 127.0.0.1 0", interactive=True),
    ExternalServer("ncat -lvU {path}", "unix", interactive=True),
    ExternalServer("ncat -lunv 127.0.0.1 0", "udp", interactive=True),
    ExternalServer("socat -d -d TCP-LISTEN:0,bind=127.0.0.1 -", interactive=True),
    ExternalServer("socat -d -d UNIX-LISTEN:{path} -", "unix", interactive=True),
    ExternalServer("socat -d -d UNIX-LISTEN:{path},socktype=5 -", "unix+seqpacket", interactive=True),
]
ECHO_SERVERS = [
    ExternalServer("ncat -lnvk 127.0.0.1 0 -e /bin/cat"),
    ExternalServer("ncat -lvkU {path} -e /bin/cat", "unix"),
    ExternalServer("socat -d -d TCP-LISTEN:0,bind=127.0.0.1,fork EXEC:/bin/cat"),
    ExternalServer("socat -d -d UNIX-LISTEN:{path},fork EXEC:/bin/cat", "unix"),
    ExternalServer("socat -d -d UDP-RECVFROM:0,bind=127.0.0.1,fork EXEC:/bin/cat", "udp"),
    ExternalServer("socat -d -d UNIX-RECVFROM:{path},fork EXEC:/bin/cat", "unix+dgram"),
]


@contextmanager
def listening(external: ExternalServer, folder: Path) -> Iterator[tuple[Running, str]]:
    """Their server, once it says that it listens, and its endpoint: not all of them tell the real port."""
    path = folder / "their.sock"
    with Running(split(external.command.format(path=path))) as server:
        told = server.stderr.wait(re.compile(rb"(?:[Ll]istening|Bound|receiving) on .*\n").search)
        assert told is not None, str(server.stderr)
        if "{path}" in external.command:
            yield server, f"{external.scheme}://{path}"
        else:
            (used,) = read_table([server.process.pid], predicate=lambda row: row.family == "inet").sockets
            yield server, f"{external.scheme}://127.0.0.1:{used.local.port}"


def server_params(servers: list[ExternalServer]) -> list[object]:
    return [pytest.param(each, id=str(each), marks=needs_tool(each.command.split()[0])) for each in servers]


@pytest.mark.parametrize("theirs", server_params(INTERACTIVE_SERVERS))
def test_connect_to_interactive_external_server(theirs: ExternalServer, short_path: Path) -> None:
    with (
        listening(theirs, short_path) as (server, endpoint),
        Running([*BOTHENDS, "connect", endpoint]) as ours,
    ):
        for word in (b"one", b"two"):
            ours.write_input(word + b"\n")
            server.text(word)
            server.write_input(b"heard " + word + b"\n")
            ours.line(b"heard " + word)
        if theirs.scheme != "udp":
            server.close_input()
            ours.close_input()
            assert ours.wait() == 0


@pytest.mark.parametrize("theirs", server_params(ECHO_SERVERS))
def test_connect_to_external_echo_server(theirs: ExternalServer, short_path: Path) -> None:
    with listening(theirs, short_path) as (_, endpoint):
        sent = run([*BOTHENDS, "connect", endpoint, "--send", "hello"])
        assert sent == (b"hello" if theirs.scheme in ("udp", "unix+dgram") else b"hello\n")
        with Running([*BOTHENDS, "connect", endpoint]) as ours:
            for word in (b"one", b"two"):
                ours.write_input(word + b"\n")
                ours.line(word)


@needs_tool("socat")
def test_connect_to_external_server_that_answers_at_eof(short_path: Path) -> None:
    theirs = ExternalServer("socat -d -d TCP-LISTEN:0,bind=127.0.0.1,fork SYSTEM:'sort -u'")
    with listening(theirs, short_path) as (_, endpoint):
        assert run([*BOTHENDS, "connect", endpoint], b"b\na\nb\n") == b"a\nb\n"


# Both listening and calling -----------------------------------------------------------------------

FILE = bytes(range(256)) * 4000


@pytest.mark.parametrize(
    "command", client_params(["nc -N {tcp}", "ncat {tcp}", "socat - TCP:127.0.0.1:{port}"])
)
def test_file_from_external_client(command: str) -> None:
    with Running([*BOTHENDS, "connect", "-l", "127.0.0.1", "0"]) as ours:
        port = ours.error_line(rb"listening on tcp://127\.0\.0\.1:(\d+)")[1].decode()
        ours.close_input()
        run(split(command.format(tcp=f"127.0.0.1 {port}", port=port)), FILE)
        assert ours.wait() == 0
        ours.wait_for_output("the file", lambda shown: True if shown == FILE else None)


@pytest.mark.parametrize(
    "theirs",
    server_params(
        [each for each in INTERACTIVE_SERVERS if each.scheme in ("tcp", "unix") and "nv" in each.command]
    ),
)
def test_file_to_external_server(theirs: ExternalServer, short_path: Path) -> None:
    with listening(theirs, short_path) as (server, endpoint):
        server.close_input()
        assert run([*BOTHENDS, "connect", endpoint], FILE) == b""
        server.wait_for_output("the file", lambda shown: True if shown == FILE else None)
        assert server.wait() == 0
