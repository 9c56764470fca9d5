"""Every line of the table in docs/how-to/netcat.md does what it says, and netcat's own does the same."""

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

# What is typed as `bothends` is the one that belongs to this Python.
FOLDER = Path(sys.executable).parent
FILE = bytes(range(256)) * 2000


class Shell:
    """A shell in a folder of its own, where port 12000 means the one at hand, and 12001 a free one."""

    def __init__(self, line: str, folder: Path) -> None:
        self.line = line
        self.folder = folder
        (folder / "file").write_bytes(FILE)

    @property
    def is_bothends(self) -> bool:
        """It is our line, and not netcat's."""
        return "bothends" in self.line

    def start(self, port: int = 0) -> Running:
        """Start the line; its standard input is the test's."""
        return Running(self._command(port))

    def run(self, port: int = 0, status: int = 0) -> bytes:
        """Run the line to its end with nothing to read; what it showed."""
        done = subprocess.run(
            self._command(port),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            env=ENVIRONMENT,
            check=False,
        )
        assert done.returncode == status, f"{self.line} left with {done.returncode}:\n{done.stderr.decode()}"
        return done.stdout

    @contextlib.contextmanager
    def listening(self) -> Iterator[tuple[Running, int]]:
        """Start the line, and wait until it listens; its port, 0 where it has none."""
        with self.start() as running:
            told = running.stderr.wait(re.compile(rb"(?:[Ll]istening|Bound|tcp:)\S* ?(?:on )?.*\n").search)
            assert told is not None, str(running.stderr)
            port = re.search(rb"[: ](\d+)\n", told[0])
            yield running, int(port[1]) if port else 0

    def _command(self, port: int) -> list[str]:
        line = self.line.replace("12000", str(port))
        if "12001" in line:
            line = line.replace("12001", str(peers.closed_port()))
        if not self.is_bothends:
            # Netcat tells its port only if it is asked to.
            verbose = " -nv" if re.search(r"nc (-N )?-l", line) else ""
            line = re.sub(r"\bnc\b", shlex.quote(find_tool("nc") or "nc") + verbose, line, count=1)
        places = f"PATH={shlex.quote(str(FOLDER))}:$PATH; cd {shlex.quote(str(self.folder))}; "
        return ["/bin/sh", "-c", places + line]


Scenario = Callable[[Shell], None]


# Calling ------------------------------------------------------------------------------------------


def exchange_lines(shell: Shell) -> None:
    """A line each way; then the peer's close ends it, although the input stays open: netcat waits for it."""

    def answer(connection: socket.socket) -> None:
        assert peers.read_line(connection) == b"hello\n"
        connection.sendall(b"answer\n")

    with peers.tcp_peer(answer) as where, shell.start(where.port or 0) as running:
        running.write_input(b"hello\n")
        running.line(b"answer")
        if not shell.is_bothends:
            running.close_input()
        assert running.wait() == 0


def request(shell: Shell) -> None:
    """A peer that answers at our end, and closes."""
    with peers.tcp_peer(peers.reply_at_eof) as where:
        assert shell.run(where.port or 0) == b"HELLO\n"


def request_from_server_that_keeps_open(shell: Shell) -> None:
    """A peer that answers, and never closes."""
    with peers.tcp_peer_held_open(peers.upper_lines) as where:
        assert shell.run(where.port or 0) == b"HELLO\n"


def connect_to_silent_server(shell: Shell) -> None:
    """A peer that says nothing, and an input that says nothing."""
    with peers.tcp_peer_held_open(lambda _: None) as where, shell.start(where.port or 0) as running:
        assert running.wait() == (124 if shell.is_bothends else 0)


def connect_from_source_address(shell: Shell) -> None:
    """The peer sees where we come from."""
    came: list[tuple[str, int]] = []
    with peers.tcp_peer(lambda sock: came.append(sock.getpeername())) as where:
        shell.run(where.port or 0)
    assert came[0][0] == "127.0.0.2"


def connect_verbosely(shell: Shell) -> None:
    """It tells that it is connected."""
    with peers.tcp_peer(peers.reply_at_eof) as where, shell.start(where.port or 0) as running:
        running.error_line(rb"[Cc]onnect.*%d.*" % (where.port or 0))


def request_http(shell: Shell) -> None:
    """A server that insists on CR LF."""

    def serve(connection: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += connection.recv(100)
        assert request == b"GET / HTTP/1.0\r\n\r\n"
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhere\n")

    with peers.tcp_peer(serve) as where:
        assert shell.run(where.port or 0) == b"HTTP/1.0 200 OK\r\n\r\nhere\n"


def exchange_over_unix_socket(shell: Shell) -> None:
    """As `talk`, on a UNIX socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(shell.folder / "a.sock"))
    listener.listen()
    with peers.serve_connections(listener, peers.reply_and_close, 1), shell.start() as running:
        running.write_input(b"you\n")
        running.text(rb"goodbye to you")
        assert running.wait() == 0


def exchange_datagrams(shell: Shell) -> None:
    """A line each way, twice. Netcat's datagrams hold the end of the line."""
    with (
        peers.udp_peer(lambda data: [data.strip().upper() + b"\n"]) as where,
        shell.start(where.port or 0) as running,
    ):
        for word in (b"one", b"two"):
            running.write_input(word + b"\n")
            running.line(word.upper())


def request_by_datagram(shell: Shell) -> None:
    """One question, one answer."""
    with peers.udp_peer(lambda data: [data.strip().upper()]) as where:
        assert shell.run(where.port or 0) == b"HELLO"


def send_file(shell: Shell) -> None:
    """Byte for byte."""
    came: list[bytes] = []
    with peers.tcp_peer(lambda sock: came.append(peers.read_all(sock))) as where:
        shell.run(where.port or 0)
    assert came == [FILE]


def fetch_file(shell: Shell) -> None:
    """Byte for byte, and the peer's close ends it."""
    with peers.tcp_peer(lambda sock: sock.sendall(FILE)) as where:
        shell.run(where.port or 0)
    assert (shell.folder / "copy").read_bytes() == FILE


# Being called -------------------------------------------------------------------------------------


def connect_to(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def accept_connection(shell: Shell) -> None:
    """A line each way; the caller's close ends it. (With netcat others could call, and wait in vain.)"""
    with shell.listening() as (running, port), connect_to(port) as caller:
        running.write_input(b"hello\n")
        assert peers.read_line(caller) == b"hello\n"
        if shell.is_bothends:
            with pytest.raises(ConnectionRefusedError):
                connect_to(port)
        caller.sendall(b"answer\n")
        caller.close()
        running.line(b"answer")
        assert running.wait() == 0


def accept_repeatedly(shell: Shell) -> None:
    """Three callers, one after the other."""
    with shell.listening() as (running, port):
        for number in range(3):
            with connect_to(port) as caller:
                caller.sendall(b"caller %d\n" % number)
                running.line(b"caller %d" % number)
        assert running.process.poll() is None


def accept_on_unix_socket(shell: Shell) -> None:
    """A line each way, on a UNIX socket."""
    with shell.listening() as (running, _), socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(TIMEOUT)
        until = time.monotonic() + TIMEOUT
        while (error := caller.connect_ex(str(shell.folder / "a.sock"))) == errno.ECONNREFUSED:
            assert time.monotonic() < until  # netcat says "Bound" before it listens
        assert error == 0
        running.write_input(b"hello\n")
        assert peers.read_line(caller) == b"hello\n"
        caller.sendall(b"answer\n")
        running.line(b"answer")


def receive_datagrams(shell: Shell) -> None:
    """From two callers; each is answered while it is the last one. Netcat knows the first only."""
    with shell.listening() as (running, port), contextlib.ExitStack() as stack:
        for name in (b"one", b"two")[: 2 if shell.is_bothends else 1]:
            caller = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            caller.settimeout(TIMEOUT)
            caller.connect(("127.0.0.1", port))
            caller.send(name + b"\n")
            running.line(name)
            running.write_input(b"to " + name + b"\n")
            assert caller.recv(100).strip() == b"to " + name


def receive_file_on_listener(shell: Shell) -> None:
    """Byte for byte."""
    with shell.listening() as (running, port):
        running.close_input()
        with connect_to(port) as caller:
            caller.sendall(FILE)
        assert running.wait() == 0
    assert (shell.folder / "copy").read_bytes() == FILE


def send_file_from_listener(shell: Shell) -> None:
    """Byte for byte, and then the end."""
    with shell.listening() as (running, port), connect_to(port) as caller:
        assert peers.read_all(caller) == FILE
        caller.close()
        assert running.wait() == 0


# Looking ------------------------------------------------------------------------------------------


def scan_port(shell: Shell) -> None:
    """Open is 0, closed is 1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        shell.run(listener.getsockname()[1])
    shell.run(peers.closed_port(), status=1)


def scan_port_range(shell: Shell) -> None:
    """A line for each of them; which are open is this machine's affair."""
    with shell.start() as running:
        assert running.wait() in (0, 1)
        for port in range(20, 26):
            running.line(rb"127\.0\.0\.1  %d/tcp .*" % port)


def scan_silent_udp_port(shell: Shell) -> None:
    """Netcat says of it: succeeded."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        assert b"open or no answer" in shell.run(deaf.getsockname()[1], status=1)


def dump_bytes(shell: Shell) -> None:
    """Both directions, in a file."""
    with peers.tcp_peer(peers.reply_and_close) as where:
        assert shell.run(where.port or 0) == b"goodbye to "
    dump = (shell.folder / "dump").read_text(encoding="ascii")
    assert "<- 00000000  67 6f 6f 64 62 79 65 20  74 6f 20                 |goodbye to |\n" in dump


# Serving ------------------------------------------------------------------------------------------


def connect_tls(shell: Shell) -> None:
    """A server with a certificate that nobody has issued."""
    server = ["bothends", "serve", "upper", "tls://127.0.0.1:0", "--tls-self-signed"]
    server[0] = str(FOLDER / "bothends")
    with Running(server) as serving:
        port = int(serving.error_line(rb"  tls://127\.0\.0\.1:(\d+)")[1])
        with shell.start(port) as running:
            running.write_input(b"hello\n")
            running.line(b"HELLO")


def serve_echo(shell: Shell) -> None:
    """Two at once."""
    with shell.listening() as (_, port), connect_to(port) as one, connect_to(port) as two:
        for caller in (two, one):
            caller.sendall(b"hello\n")
            assert peers.read_line(caller) == b"hello\n"


def serve_command(shell: Shell) -> None:
    """It answers at the end of its input."""
    with shell.listening() as (_, port), connect_to(port) as caller:
        caller.sendall(b"b\na\nb\n")
        caller.shutdown(socket.SHUT_WR)
        assert peers.read_all(caller) == b"a\nb\n"


def serve_chat(shell: Shell) -> None:
    """What one says, the other hears."""
    with shell.listening() as (_, port), connect_to(port) as one, connect_to(port) as two:
        assert peers.read_line(one).endswith(b" joined\n")
        one.sendall(b"hello, all\n")
        assert peers.read_line(two).endswith(b": hello, all\n")


@dataclass(frozen=True)
class NetcatUsage:
    """A line of netcat's, ours, and what both must do. `alone`: netcat does something else, or it is ncat."""

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
    """Whether there is a netcat, and it is the one of which the table speaks."""
    path = find_tool("nc")
    if path is None:
        return False
    told = subprocess.run([path, "-h"], capture_output=True, timeout=TIMEOUT, check=False)
    return b"OpenBSD" in told.stdout + told.stderr


def test_guide_lists_all_usages() -> None:
    rows = [
        tuple(re.findall(r"`((?:\\\||[^`])+)`", row)[:2])
        for row in GUIDE.read_text(encoding="utf-8").splitlines()
        if row.startswith("| `")
    ]
    assert [tuple(cell.replace("\\|", "|") for cell in row) for row in rows] == [
        (habit.netcat, habit.bothends) for habit in NETCAT_USAGES
    ]


@pytest.mark.parametrize("habit", NETCAT_USAGES, ids=str)
def test_bothends_usage(habit: NetcatUsage, tmp_path: Path) -> None:
    habit.scenario(Shell(habit.bothends, tmp_path))


@pytest.mark.skipif(not is_openbsd_netcat(), reason="OpenBSD's nc isn't installed")
@pytest.mark.parametrize(
    "habit", [each for each in NETCAT_USAGES if not each.bothends_only], ids=lambda each: each.netcat
)
def test_netcat_usage(habit: NetcatUsage, tmp_path: Path) -> None:
    habit.scenario(Shell(habit.netcat, tmp_path))
