"""Every command in the table of docs/how-to/netcat.md works, and netcat's does the same."""

from __future__ import annotations

import contextlib
import errno
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client import peers
from tests.interop.running import ENVIRONMENT, ROOT, TIMEOUT, Running
from tests.tools import find_tool

GUIDE = ROOT / "docs" / "how-to" / "netcat.md"

# `bothends` in a command is the one of this Python.
FOLDER = Path(sys.executable).parent
FILE = bytes(range(256)) * 2000


class Shell:
    """A shell in its own folder. It replaces port 12000 by the test's port, and 12001 by a free one."""

    def __init__(self, line: str, folder: Path) -> None:
        self.line = line
        self.folder = folder
        (folder / "file").write_bytes(FILE)

    @property
    def is_bothends(self) -> bool:
        """Whether the command is bothends', not netcat's."""
        return "bothends" in self.line

    def start(self, port: int = 0) -> Running:
        """Start the command. The test writes its standard input."""
        return Running(self._command(port))

    def run(self, port: int = 0, status: int = 0) -> bytes:
        """Run the command without input. Returns its standard output."""
        done = subprocess.run(
            self._command(port),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            env=ENVIRONMENT,
            check=False,
        )
        assert done.returncode == status, (
            f"{self.line} exited with {done.returncode}:\n{done.stderr.decode()}"
        )
        return done.stdout

    @contextlib.contextmanager
    def listening(self) -> Iterator[tuple[Running, int]]:
        """Start the command, and wait until it listens. Yields it and its port, or 0."""
        with self.start() as running:
            found = running.stderr.wait(re.compile(rb"(?:[Ll]istening|Bound|tcp:)\S* ?(?:on )?.*\n").search)
            assert found is not None, str(running.stderr)
            port = re.search(rb"[: ](\d+)\n", found[0])
            yield running, int(port[1]) if port else 0

    def _command(self, port: int) -> list[str]:
        line = self.line.replace("12000", str(port))
        if "12001" in line:
            line = line.replace("12001", str(peers.closed_port()))
        if not self.is_bothends:
            # Netcat prints its port only with -v.
            verbose = " -nv" if re.search(r"nc (-N )?-l", line) else ""
            line = re.sub(r"\bnc\b", shlex.quote(find_tool("nc") or "nc") + verbose, line, count=1)
        prefix = f"PATH={shlex.quote(str(FOLDER))}:$PATH; cd {shlex.quote(str(self.folder))}; "
        return ["/bin/sh", "-c", prefix + line]


Scenario = Callable[[Shell], None]


# Connecting ------------------------------------------------------------------------------------------


def exchange_lines(shell: Shell) -> None:
    """A line each way, then the peer closes. Netcat exits only at EOF of its input."""

    def answer(connection: socket.socket) -> None:
        assert peers.read_line(connection) == b"hello\n"
        connection.sendall(b"answer\n")

    with peers.tcp_peer(answer) as endpoint, shell.start(endpoint.port or 0) as running:
        running.write_input(b"hello\n")
        running.line(b"answer")
        if not shell.is_bothends:
            running.close_input()
        assert running.wait() == 0


def request(shell: Shell) -> None:
    """The peer answers at EOF, and closes."""
    with peers.tcp_peer(peers.reply_at_eof) as endpoint:
        assert shell.run(endpoint.port or 0) == b"HELLO\n"


def request_from_server_that_keeps_open(shell: Shell) -> None:
    """The peer answers, and never closes."""
    with peers.tcp_peer_held_open(peers.upper_lines) as endpoint:
        assert shell.run(endpoint.port or 0) == b"HELLO\n"


def connect_to_silent_server(shell: Shell) -> None:
    """Neither the peer nor the input sends anything."""
    with peers.tcp_peer_held_open(lambda _: None) as endpoint, shell.start(endpoint.port or 0) as running:
        assert running.wait() == (124 if shell.is_bothends else 0)


def connect_from_source_address(shell: Shell) -> None:
    """The peer sees the source address."""
    received: list[tuple[str, int]] = []
    with peers.tcp_peer(lambda sock: received.append(sock.getpeername())) as endpoint:
        shell.run(endpoint.port or 0)
    assert received[0][0] == "127.0.0.2"


def connect_verbosely(shell: Shell) -> None:
    """It prints that it is connected."""
    with peers.tcp_peer(peers.reply_at_eof) as endpoint, shell.start(endpoint.port or 0) as running:
        running.error_line(rb"[Cc]onnect.*%d.*" % (endpoint.port or 0))


def request_http(shell: Shell) -> None:
    """The server requires CR LF."""

    def serve(connection: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += connection.recv(100)
        assert request == b"GET / HTTP/1.0\r\n\r\n"
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhere\n")

    with peers.tcp_peer(serve) as endpoint:
        assert shell.run(endpoint.port or 0) == b"HTTP/1.0 200 OK\r\n\r\nhere\n"


def exchange_over_unix_socket(shell: Shell) -> None:
    """As `exchange_lines`, on a UNIX socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(shell.folder / "a.sock"))
    listener.listen()
    with peers.serve_connections(listener, peers.reply_and_close, 1), shell.start() as running:
        running.write_input(b"you\n")
        running.text(rb"goodbye to you")
        assert running.wait() == 0


def exchange_datagrams(shell: Shell) -> None:
    """A line each way, twice. Netcat's datagrams contain the newline."""
    with (
        peers.udp_peer(lambda data: [data.strip().upper() + b"\n"]) as endpoint,
        shell.start(endpoint.port or 0) as running,
    ):
        for word in (b"one", b"two"):
            running.write_input(word + b"\n")
            running.line(word.upper())


def request_by_datagram(shell: Shell) -> None:
    """One request, one answer."""
    with peers.udp_peer(lambda data: [data.strip().upper()]) as endpoint:
        assert shell.run(endpoint.port or 0) == b"HELLO"


def send_file(shell: Shell) -> None:
    """Byte for byte."""
    received: list[bytes] = []
    with peers.tcp_peer(lambda sock: received.append(peers.read_all(sock))) as endpoint:
        shell.run(endpoint.port or 0)
    assert received == [FILE]


def fetch_file(shell: Shell) -> None:
    """Byte for byte, until the peer closes."""
    with peers.tcp_peer(lambda sock: sock.sendall(FILE)) as endpoint:
        shell.run(endpoint.port or 0)
    assert (shell.folder / "copy").read_bytes() == FILE


# Listening -------------------------------------------------------------------------------------


def connect_to(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def accept_connection(shell: Shell) -> None:
    """A line each way, until the client closes. (Netcat accepts more clients, but never serves them.)"""
    with shell.listening() as (running, port), connect_to(port) as client:
        running.write_input(b"hello\n")
        assert peers.read_line(client) == b"hello\n"
        if shell.is_bothends:
            with pytest.raises(ConnectionRefusedError):
                connect_to(port)
        client.sendall(b"answer\n")
        client.close()
        running.line(b"answer")
        assert running.wait() == 0


def accept_repeatedly(shell: Shell) -> None:
    """Three clients, one after the other."""
    with shell.listening() as (running, port):
        for number in range(3):
            with connect_to(port) as client:
                client.sendall(b"client %d\n" % number)
                running.line(b"client %d" % number)
        assert running.process.poll() is None


def accept_on_unix_socket(shell: Shell) -> None:
    """A line each way, on a UNIX socket."""
    with shell.listening() as (running, _), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        until = time.monotonic() + TIMEOUT
        while (error := client.connect_ex(str(shell.folder / "a.sock"))) == errno.ECONNREFUSED:
            assert time.monotonic() < until  # netcat prints "Bound" before it listens
        assert error == 0
        running.write_input(b"hello\n")
        assert peers.read_line(client) == b"hello\n"
        client.sendall(b"answer\n")
        running.line(b"answer")


def receive_datagrams(shell: Shell) -> None:
    """Each of two clients is answered while it was the last to send. Netcat answers the first only."""
    with shell.listening() as (running, port), contextlib.ExitStack() as stack:
        for name in (b"one", b"two")[: 2 if shell.is_bothends else 1]:
            client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            client.settimeout(TIMEOUT)
            client.connect(("127.0.0.1", port))
            client.send(name + b"\n")
            running.line(name)
            running.write_input(b"to " + name + b"\n")
            assert client.recv(100).strip() == b"to " + name


def receive_file_on_listener(shell: Shell) -> None:
    """Byte for byte."""
    with shell.listening() as (running, port):
        running.close_input()
        with connect_to(port) as client:
            client.sendall(FILE)
        assert running.wait() == 0
    assert (shell.folder / "copy").read_bytes() == FILE


def send_file_from_listener(shell: Shell) -> None:
    """Byte for byte, then EOF."""
    with shell.listening() as (running, port), connect_to(port) as client:
        assert peers.read_all(client) == FILE
        client.close()
        assert running.wait() == 0


# Scanning ------------------------------------------------------------------------------------------


def scan_port(shell: Shell) -> None:
    """Exit status 0 for an open port, 1 for a closed one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        shell.run(listener.getsockname()[1])
    shell.run(peers.closed_port(), status=1)


def scan_port_range(shell: Shell) -> None:
    """A line for each port; which are open depends on the machine."""
    with shell.start() as running:
        assert running.wait() in (0, 1)
        for port in range(20, 26):
            running.line(rb"127\.0\.0\.1  %d/tcp .*" % port)


def scan_silent_udp_port(shell: Shell) -> None:
    """Netcat reports success."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        assert b"open or no answer" in shell.run(silent.getsockname()[1], status=1)


def dump_bytes(shell: Shell) -> None:
    """Both directions, in a file."""
    with peers.tcp_peer(peers.reply_and_close) as endpoint:
        assert shell.run(endpoint.port or 0) == b"goodbye to "
    dump = (shell.folder / "dump").read_text(encoding="ascii")
    assert "<- 00000000  67 6f 6f 64 62 79 65 20  74 6f 20                 |goodbye to |\n" in dump


# Serving ------------------------------------------------------------------------------------------


def connect_tls(shell: Shell) -> None:
    """The server has a self-signed certificate."""
    server = ["bothends", "serve", "upper", "tls://127.0.0.1:0", "--tls-self-signed"]
    server[0] = str(FOLDER / "bothends")
    with Running(server) as serving:
        port = int(serving.error_line(rb"  tls://127\.0\.0\.1:(\d+)")[1])
        with shell.start(port) as running:
            running.write_input(b"hello\n")
            running.line(b"HELLO")


def serve_echo(shell: Shell) -> None:
    """Two clients at once."""
    with shell.listening() as (_, port), connect_to(port) as one, connect_to(port) as two:
        for client in (two, one):
            client.sendall(b"hello\n")
            assert peers.read_line(client) == b"hello\n"


def serve_command(shell: Shell) -> None:
    """The command answers at EOF of its input."""
    with shell.listening() as (_, port), connect_to(port) as client:
        client.sendall(b"b\na\nb\n")
        client.shutdown(socket.SHUT_WR)
        assert peers.read_all(client) == b"a\nb\n"


def serve_chat(shell: Shell) -> None:
    """One client receives the other's line."""
    with shell.listening() as (_, port), connect_to(port) as one, connect_to(port) as two:
        assert peers.read_line(one).endswith(b" joined\n")
        one.sendall(b"hello, all\n")
        assert peers.read_line(two).endswith(b": hello, all\n")


@dataclass(frozen=True)
class NetcatUsage:
    """A netcat command, the bothends command, and a scenario for both.

    `bothends_only`: netcat behaves differently, or the command needs ncat.
    """

    netcat: str
    bothends: str
    scenario: Scenario
    bothends_only: bool = False

    def __str__(self) -> str:
        return self.bothends


CONNECT = "bothends connect"
TARGET = "127.0.0.1 12000"
NETCAT_USAGES = [
    NetcatUsage(f"nc {TARGET}", f"{CONNECT} {TARGET}", exchange_lines),
    NetcatUsage(f"echo hello | nc -N {TARGET}", f"echo hello | {CONNECT} {TARGET}", request),
    NetcatUsage(
        f"echo hello | nc -q 1 {TARGET}",
        f"echo hello | {CONNECT} -q 1 {TARGET}",
        request_from_server_that_keeps_open,
        bothends_only=True,
    ),
    NetcatUsage(f"nc -w 1 {TARGET}", f"{CONNECT} -w 1 {TARGET}", connect_to_silent_server),
    NetcatUsage(f"nc -n {TARGET}", f"{CONNECT} -n {TARGET}", exchange_lines),
    NetcatUsage("nc -4 localhost 12000", f"{CONNECT} -4 localhost 12000", exchange_lines),
    NetcatUsage(f"nc -v {TARGET}", f"{CONNECT} -v {TARGET}", connect_verbosely),
    NetcatUsage(
        f"nc -s 127.0.0.2 -p 12001 {TARGET}",
        f"{CONNECT} -s 127.0.0.2 -p 12001 {TARGET}",
        connect_from_source_address,
    ),
    NetcatUsage(
        f"printf 'GET / HTTP/1.0\\n\\n' | nc -C {TARGET}",
        f"printf 'GET / HTTP/1.0\\n\\n' | {CONNECT} -C {TARGET}",
        request_http,
    ),
    NetcatUsage("nc -U a.sock", f"{CONNECT} -U a.sock", exchange_over_unix_socket),
    NetcatUsage(f"nc -u {TARGET}", f"{CONNECT} -u {TARGET}", exchange_datagrams),
    NetcatUsage(
        f"echo hello | nc -u -w 1 {TARGET}", f"{CONNECT} -u {TARGET} --send hello", request_by_datagram
    ),
    NetcatUsage("nc -l 12000", f"{CONNECT} -l 12000", accept_connection),
    NetcatUsage("nc -l -p 12000", f"{CONNECT} -l -p 12000", accept_connection),
    NetcatUsage("nc -lk 12000", f"{CONNECT} -lk 12000", accept_repeatedly),
    NetcatUsage("nc -lU a.sock", f"{CONNECT} -lU a.sock", accept_on_unix_socket),
    NetcatUsage("nc -lu 12000", f"{CONNECT} -lu 12000", receive_datagrams),
    NetcatUsage("nc -l 12000 > copy", f"{CONNECT} -l 12000 > copy", receive_file_on_listener),
    NetcatUsage(f"nc -N {TARGET} < file", f"{CONNECT} {TARGET} < file", send_file),
    NetcatUsage("nc -N -l 12000 < file", f"{CONNECT} -l 12000 < file", send_file_from_listener),
    NetcatUsage(f"nc -d {TARGET} > copy", f"{CONNECT} {TARGET} < /dev/null > copy", fetch_file),
    NetcatUsage(f"nc -z {TARGET}", f"{CONNECT} -z {TARGET}", scan_port),
    NetcatUsage(
        "nc -zv 127.0.0.1 20-25", f"{CONNECT} -zv 127.0.0.1 20-25", scan_port_range, bothends_only=True
    ),
    NetcatUsage(f"nc -zu {TARGET}", f"{CONNECT} -zu {TARGET}", scan_silent_udp_port, bothends_only=True),
    NetcatUsage(
        f"ncat -x dump {TARGET}", f"{CONNECT} --hex {TARGET} 2> dump", dump_bytes, bothends_only=True
    ),
    NetcatUsage(
        f"ncat --ssl {TARGET}", f"{CONNECT} tls://127.0.0.1:12000 --insecure", connect_tls, bothends_only=True
    ),
    NetcatUsage(
        f"ncat -lk -e /bin/cat {TARGET}",
        "bothends serve echo tcp://127.0.0.1:12000",
        serve_echo,
        bothends_only=True,
    ),
    NetcatUsage(
        f"ncat -lk -c 'sort -u' {TARGET}",
        "bothends serve --exec 'sort -u' tcp://127.0.0.1:12000",
        serve_command,
        bothends_only=True,
    ),
    NetcatUsage(
        f"ncat -l --chat {TARGET}",
        "bothends serve chat tcp://127.0.0.1:12000",
        serve_chat,
        bothends_only=True,
    ),
]


def is_openbsd_netcat() -> bool:
    """Return whether OpenBSD's netcat is installed, which the table is about."""
    path = find_tool("nc")
    if path is None:
        return False
    done = subprocess.run([path, "-h"], capture_output=True, timeout=TIMEOUT, check=False)
    return b"OpenBSD" in done.stdout + done.stderr


def test_guide_lists_all_usages() -> None:
    rows = [
        tuple(re.findall(r"`((?:\\\||[^`])+)`", row)[:2])
        for row in GUIDE.read_text(encoding="utf-8").splitlines()
        if row.startswith("| `")
    ]
    assert [tuple(cell.replace("\\|", "|") for cell in row) for row in rows] == [
        (usage.netcat, usage.bothends) for usage in NETCAT_USAGES
    ]


@pytest.mark.spread("usage", one_in=3)
@pytest.mark.parametrize("usage", NETCAT_USAGES, ids=str)
def test_bothends_usage(usage: NetcatUsage, tmp_path: Path) -> None:
    usage.scenario(Shell(usage.bothends, tmp_path))


@pytest.mark.skipif(not is_openbsd_netcat(), reason="OpenBSD's nc isn't installed")
@pytest.mark.parametrize(
    "usage", [each for each in NETCAT_USAGES if not each.bothends_only], ids=lambda each: each.netcat
)
def test_netcat_usage(usage: NetcatUsage, tmp_path: Path) -> None:
    usage.scenario(Shell(usage.netcat, tmp_path))
