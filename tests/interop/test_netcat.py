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
from tests.interop.ours import BOTHENDS, Servers
from tests.interop.running import Running, run
from tests.tools import find_tool, needs_tool


def split(command: str) -> list[str]:
    """The words of a command, the tool by the path at which it was found."""
    tool, *words = shlex.split(command)
    return [find_tool(tool) or tool, *words]


# Their clients ------------------------------------------------------------------------------------

# Half-close, and read to our end; `{...}` are the places of `Ours`.
PIPES = [
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
TALKERS = [
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


def of_each(commands: list[str]) -> list[object]:
    """A parameter for each command, skipped where its tool isn't."""
    return [pytest.param(each, id=each, marks=needs_tool(each.split()[0])) for each in commands]


def places(servers: Servers, command: str, service: str) -> list[str]:
    """A client's command line for a service of ours."""
    if ("{udp" in command or "{unix_dgram}" in command) and not servers.engine.datagrams:
        pytest.skip(f"engine {servers.engine.name} has no datagrams")
    where = servers[service].places
    udp_port = where.get("udp", "").rpartition(" ")[2]
    return split(command.format(**where, udp_port=udp_port))


@pytest.mark.parametrize("command", of_each(PIPES))
def test_their_client_in_a_pipe(servers: Servers, command: str) -> None:
    said = b"".join(b"line %d of what is said\n" % number for number in range(2000))
    heard = said.upper().replace(b"\n", b"\r\n") if " -C " in command else said.upper()
    assert run(places(servers, command, "upper"), said) == heard


@pytest.mark.parametrize("command", of_each(TALKERS))
def test_their_client_in_a_talk(servers: Servers, command: str) -> None:
    Path(servers["upper"].places["own"]).unlink(missing_ok=True)  # socat's own name
    with Running(places(servers, command, "upper")) as client:
        for word in (b"hello", b"and again"):
            client.say(word + b"\n")
            client.line(word.upper())


# Their servers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Theirs:
    """A server of theirs: `{path}` is a free path. It answers each line as `tr a-z A-Z` would, or echoes it,
    or (`by_hand`) says what the test types. `scheme` is how we reach it.
    """

    command: str
    scheme: str = "tcp"
    by_hand: bool = False

    def __str__(self) -> str:
        return self.command


BY_HAND = [
    Theirs("nc -lnv 127.0.0.1 0", by_hand=True),
    Theirs("nc -lnvU {path}", "unix", by_hand=True),
    Theirs("nc -lunv 127.0.0.1 0", "udp", by_hand=True),
    Theirs("ncat -lnv 127.0.0.1 0", by_hand=True),
    Theirs("ncat -lvU {path}", "unix", by_hand=True),
    Theirs("ncat -lunv 127.0.0.1 0", "udp", by_hand=True),
    Theirs("socat -d -d TCP-LISTEN:0,bind=127.0.0.1 -", by_hand=True),
    Theirs("socat -d -d UNIX-LISTEN:{path} -", "unix", by_hand=True),
    Theirs("socat -d -d UNIX-LISTEN:{path},socktype=5 -", "unix+seqpacket", by_hand=True),
]
BY_PROGRAM = [
    Theirs("ncat -lnvk 127.0.0.1 0 -e /bin/cat"),
    Theirs("ncat -lvkU {path} -e /bin/cat", "unix"),
    Theirs("socat -d -d TCP-LISTEN:0,bind=127.0.0.1,fork EXEC:/bin/cat"),
    Theirs("socat -d -d UNIX-LISTEN:{path},fork EXEC:/bin/cat", "unix"),
    Theirs("socat -d -d UDP-RECVFROM:0,bind=127.0.0.1,fork EXEC:/bin/cat", "udp"),
    Theirs("socat -d -d UNIX-RECVFROM:{path},fork EXEC:/bin/cat", "unix+dgram"),
]


@contextmanager
def listening(theirs: Theirs, folder: Path) -> Iterator[tuple[Running, str]]:
    """Their server, once it says that it listens, and its endpoint: not all of them tell the real port."""
    path = folder / "their.sock"
    with Running(split(theirs.command.format(path=path))) as server:
        told = server.complained.wait(re.compile(rb"(?:[Ll]istening|Bound|receiving) on .*\n").search)
        assert told is not None, str(server.complained)
        if "{path}" in theirs.command:
            yield server, f"{theirs.scheme}://{path}"
        else:
            (used,) = read_table([server.process.pid], wanted=lambda row: row.family == "inet").sockets
            yield server, f"{theirs.scheme}://127.0.0.1:{used.local.port}"


def each_of(servers: list[Theirs]) -> list[object]:
    return [pytest.param(each, id=str(each), marks=needs_tool(each.command.split()[0])) for each in servers]


@pytest.mark.parametrize("theirs", each_of(BY_HAND))
def test_our_client_talks_to_whoever_types_there(theirs: Theirs, short_path: Path) -> None:
    with (
        listening(theirs, short_path) as (server, endpoint),
        Running([*BOTHENDS, "connect", endpoint]) as ours,
    ):
        for word in (b"one", b"two"):
            ours.say(word + b"\n")
            server.text(word)
            server.say(b"heard " + word + b"\n")
            ours.line(b"heard " + word)
        if theirs.scheme != "udp":
            server.end_input()
            ours.end_input()
            assert ours.end() == 0


@pytest.mark.parametrize("theirs", each_of(BY_PROGRAM))
def test_our_client_asks_a_program_there(theirs: Theirs, short_path: Path) -> None:
    with listening(theirs, short_path) as (_, endpoint):
        sent = run([*BOTHENDS, "connect", endpoint, "--send", "hello"])
        assert sent == (b"hello" if theirs.scheme in ("udp", "unix+dgram") else b"hello\n")
        with Running([*BOTHENDS, "connect", endpoint]) as ours:
            for word in (b"one", b"two"):
                ours.say(word + b"\n")
                ours.line(word)


@needs_tool("socat")
def test_a_program_that_answers_at_our_end(short_path: Path) -> None:
    theirs = Theirs("socat -d -d TCP-LISTEN:0,bind=127.0.0.1,fork SYSTEM:'sort -u'")
    with listening(theirs, short_path) as (_, endpoint):
        assert run([*BOTHENDS, "connect", endpoint], b"b\na\nb\n") == b"a\nb\n"


# Both listening and calling -----------------------------------------------------------------------

FILE = bytes(range(256)) * 4000


@pytest.mark.parametrize("command", of_each(["nc -N {tcp}", "ncat {tcp}", "socat - TCP:127.0.0.1:{port}"]))
def test_a_file_from_them_to_ours(command: str) -> None:
    with Running([*BOTHENDS, "connect", "-l", "127.0.0.1", "0"]) as ours:
        port = ours.error_line(rb"listening on tcp://127\.0\.0\.1:(\d+)")[1].decode()
        ours.end_input()
        run(split(command.format(tcp=f"127.0.0.1 {port}", port=port)), FILE)
        assert ours.end() == 0
        ours.until("the file", lambda shown: True if shown == FILE else None)


@pytest.mark.parametrize(
    "theirs", each_of([each for each in BY_HAND if each.scheme in ("tcp", "unix") and "nv" in each.command])
)
def test_a_file_from_ours_to_them(theirs: Theirs, short_path: Path) -> None:
    with listening(theirs, short_path) as (server, endpoint):
        server.end_input()
        assert run([*BOTHENDS, "connect", endpoint], FILE) == b""
        server.until("the file", lambda shown: True if shown == FILE else None)
        assert server.end() == 0
