"""OpenBSD's nc, ncat, socat and curl as clients of bothends servers, and as servers for its client."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bothends.socket_table import read_table
from tests.interop.bothends_servers import BOTHENDS, EngineServers
from tests.interop.running import Running, run
from tests.tools import find_tool, needs_tool


def split(command: str) -> list[str]:
    """Return the arguments of a command, with the tool's path."""
    tool, *words = shlex.split(command)
    return [find_tool(tool) or tool, *words]


# External clients ------------------------------------------------------------------------------------

# They half-close, and read until EOF; `{...}` are the addresses of `BothendsServer`.
PIPE_CLIENTS = [
    "nc -N {tcp}",
    "nc -N -U {unix}",
    "ncat {tcp}",
    "ncat -C {tcp}",
    "ncat -U {unix}",
    "socat - TCP:127.0.0.1:{port}",
    "socat - UNIX-CONNECT:{unix}",
]

# They stay connected, so the test waits for each answer. Datagram clients wait for more datagrams, and curl
# ignores EOF of its input.
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
    """Return a parameter for each command, skipped if its tool is missing."""
    return [pytest.param(each, id=each, marks=needs_tool(each.split()[0])) for each in commands]


def client_command(servers: EngineServers, command: str, service: str) -> list[str]:
    """Return a client's command line for a bothends server."""
    if ("{udp" in command or "{unix_dgram}" in command) and not servers.engine.datagrams:
        pytest.skip(f"engine {servers.engine.name} has no datagrams")
    addresses = servers[service].addresses
    udp_port = addresses.get("udp", "").rpartition(" ")[2]
    return split(command.format(**addresses, udp_port=udp_port))


@pytest.mark.spread("servers", one_in=3)
@pytest.mark.parametrize("command", client_params(PIPE_CLIENTS))
def test_external_client_in_pipe(servers: EngineServers, command: str) -> None:
    sent = b"".join(b"line %d of the input\n" % number for number in range(2000))
    expected = sent.upper().replace(b"\n", b"\r\n") if " -C " in command else sent.upper()
    assert run(client_command(servers, command, "upper"), sent) == expected


@pytest.mark.spread("servers", one_in=3)
@pytest.mark.parametrize("command", client_params(INTERACTIVE_CLIENTS))
def test_external_client_interactive(servers: EngineServers, command: str) -> None:
    Path(servers["upper"].addresses["own"]).unlink(missing_ok=True)  # socat's own address
    with Running(client_command(servers, command, "upper")) as client:
        for word in (b"hello", b"and again"):
            client.write_input(word + b"\n")
            client.line(word.upper())


# External servers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExternalServer:
    """A server that is not bothends.

    `command` may contain `{path}`, a free path. The server echoes each line, or sends the test's input
    (`interactive`). `scheme` is that of its endpoint.
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
    """Run an external server until it listens. Yields it and its endpoint; not all servers print the port."""
    path = folder / "external.sock"
    with Running(split(external.command.format(path=path))) as server:
        found = server.stderr.wait(re.compile(rb"(?:[Ll]istening|Bound|receiving) on .*\n").search)
        assert found is not None, str(server.stderr)
        if "{path}" in external.command:
            yield server, f"{external.scheme}://{path}"
        else:
            (used,) = read_table([server.process.pid], predicate=lambda row: row.family == "inet").sockets
            yield server, f"{external.scheme}://127.0.0.1:{used.local.port}"


def server_params(servers: list[ExternalServer]) -> list[object]:
    return [pytest.param(each, id=str(each), marks=needs_tool(each.command.split()[0])) for each in servers]


@pytest.mark.parametrize("external", server_params(INTERACTIVE_SERVERS))
def test_connect_to_interactive_external_server(external: ExternalServer, short_path: Path) -> None:
    with (
        listening(external, short_path) as (server, endpoint),
        Running([*BOTHENDS, "connect", endpoint]) as client,
    ):
        for word in (b"one", b"two"):
            client.write_input(word + b"\n")
            server.text(word)
            server.write_input(b"received " + word + b"\n")
            client.line(b"received " + word)
        if external.scheme != "udp":
            server.close_input()
            client.close_input()
            assert client.wait() == 0


@pytest.mark.spread("external", one_in=3)
@pytest.mark.parametrize("external", server_params(ECHO_SERVERS))
def test_connect_to_external_echo_server(external: ExternalServer, short_path: Path) -> None:
    with listening(external, short_path) as (_, endpoint):
        sent = run([*BOTHENDS, "connect", endpoint, "--send", "hello"])
        assert sent == (b"hello" if external.scheme in ("udp", "unix+dgram") else b"hello\n")
        with Running([*BOTHENDS, "connect", endpoint]) as client:
            for word in (b"one", b"two"):
                client.write_input(word + b"\n")
                client.line(word)


@needs_tool("socat")
def test_connect_to_external_server_that_answers_at_eof(short_path: Path) -> None:
    external = ExternalServer("socat -d -d TCP-LISTEN:0,bind=127.0.0.1,fork SYSTEM:'sort -u'")
    with listening(external, short_path) as (_, endpoint):
        assert run([*BOTHENDS, "connect", endpoint], b"b\na\nb\n") == b"a\nb\n"


# Both listening and connecting -----------------------------------------------------------------------

FILE = bytes(range(256)) * 4000


@pytest.mark.parametrize(
    "command", client_params(["nc -N {tcp}", "ncat {tcp}", "socat - TCP:127.0.0.1:{port}"])
)
def test_file_from_external_client(command: str) -> None:
    with Running([*BOTHENDS, "connect", "-l", "127.0.0.1", "0"]) as client:
        port = client.error_line(rb"listening on tcp://127\.0\.0\.1:(\d+)")[1].decode()
        client.close_input()
        run(split(command.format(tcp=f"127.0.0.1 {port}", port=port)), FILE)
        assert client.wait() == 0
        client.wait_for_output("the file", lambda shown: True if shown == FILE else None)


@pytest.mark.parametrize(
    "external",
    server_params(
        [each for each in INTERACTIVE_SERVERS if each.scheme in ("tcp", "unix") and "nv" in each.command]
    ),
)
def test_file_to_external_server(external: ExternalServer, short_path: Path) -> None:
    with listening(external, short_path) as (server, endpoint):
        server.close_input()
        assert run([*BOTHENDS, "connect", endpoint], FILE) == b""
        server.wait_for_output("the file", lambda shown: True if shown == FILE else None)
        assert server.wait() == 0
