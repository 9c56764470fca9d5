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
from tests.interop.running import ENVIRONMENT, PATIENCE, ROOT, Running
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
    def is_ours(self) -> bool:
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
            timeout=PATIENCE,
            env=ENVIRONMENT,
            check=False,
        )
        assert done.returncode == status, f"{self.line} left with {done.returncode}:\n{done.stderr.decode()}"
        return done.stdout

    @contextlib.contextmanager
    def listening(self) -> Iterator[tuple[Running, int]]:
        """Start the line, and wait until it listens; its port, 0 where it has none."""
        with self.start() as running:
            told = running.complained.wait(
                re.compile(rb"(?:[Ll]istening|Bound|tcp:)\S* ?(?:on )?.*\n").search
            )
            assert told is not None, str(running.complained)
            port = re.search(rb"[: ](\d+)\n", told[0])
            yield running, int(port[1]) if port else 0

    def _command(self, port: int) -> list[str]:
        line = self.line.replace("12000", str(port))
        if "12001" in line:
            line = line.replace("12001", str(peers.closed_port()))
        if not self.is_ours:
            # Netcat tells its port only if it is asked to.
            verbose = " -nv" if re.search(r"nc (-N )?-l", line) else ""
            line = re.sub(r"\bnc\b", shlex.quote(find_tool("nc") or "nc") + verbose, line, count=1)
        places = f"PATH={shlex.quote(str(FOLDER))}:$PATH; cd {shlex.quote(str(self.folder))}; "
        return ["/bin/sh", "-c", places + line]


Scenario = Callable[[Shell], None]


# Calling ------------------------------------------------------------------------------------------


def talk(shell: Shell) -> None:
    """A line each way; then the peer's close ends it, although the input stays open: netcat waits for it."""

    def answer(connection: socket.socket) -> None:
        assert peers.read_line(connection) == b"hello\n"
        connection.sendall(b"answer\n")

    with peers.peer(answer) as where, shell.start(where.port or 0) as running:
        running.say(b"hello\n")
        running.line(b"answer")
        if not shell.is_ours:
            running.end_input()
        assert running.end() == 0


def ask(shell: Shell) -> None:
    """A peer that answers at our end, and closes."""
    with peers.peer(peers.answer_at_end) as where:
        assert shell.run(where.port or 0) == b"HELLO\n"


def ask_one_that_stays(shell: Shell) -> None:
    """A peer that answers, and never closes."""
    with peers.staying(peers.shout) as where:
        assert shell.run(where.port or 0) == b"HELLO\n"


def ask_one_that_is_silent(shell: Shell) -> None:
    """A peer that says nothing, and an input that says nothing."""
    with peers.staying(lambda _: None) as where, shell.start(where.port or 0) as running:
        assert running.end() == (124 if shell.is_ours else 0)


def come_from(shell: Shell) -> None:
    """The peer sees where we come from."""
    came: list[tuple[str, int]] = []
    with peers.peer(lambda sock: came.append(sock.getpeername())) as where:
        shell.run(where.port or 0)
    assert came[0][0] == "127.0.0.2"


def be_told(shell: Shell) -> None:
    """It tells that it is connected."""
    with peers.peer(peers.answer_at_end) as where, shell.start(where.port or 0) as running:
        running.error_line(rb"[Cc]onnect.*%d.*" % (where.port or 0))


def ask_http(shell: Shell) -> None:
    """A server that insists on CR LF."""

    def serve(connection: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += connection.recv(100)
        assert request == b"GET / HTTP/1.0\r\n\r\n"
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhere\n")

    with peers.peer(serve) as where:
        assert shell.run(where.port or 0) == b"HTTP/1.0 200 OK\r\n\r\nhere\n"


def talk_through_a_file(shell: Shell) -> None:
    """As `talk`, on a UNIX socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(shell.folder / "a.sock"))
    listener.listen()
    with peers.serving(listener, peers.answer_and_close, 1), shell.start() as running:
        running.say(b"you\n")
        running.text(rb"goodbye to you")
        assert running.end() == 0


def talk_in_datagrams(shell: Shell) -> None:
    """A line each way, twice. Netcat's datagrams hold the end of the line."""
    with (
        peers.datagram_peer(lambda data: [data.strip().upper() + b"\n"]) as where,
        shell.start(where.port or 0) as running,
    ):
        for word in (b"one", b"two"):
            running.say(word + b"\n")
            running.line(word.upper())


def ask_in_a_datagram(shell: Shell) -> None:
    """One question, one answer."""
    with peers.datagram_peer(lambda data: [data.strip().upper()]) as where:
        assert shell.run(where.port or 0) == b"HELLO"


def send_a_file(shell: Shell) -> None:
    """Byte for byte."""
    came: list[bytes] = []
    with peers.peer(lambda sock: came.append(peers.read_all(sock))) as where:
        shell.run(where.port or 0)
    assert came == [FILE]


def fetch_a_file(shell: Shell) -> None:
    """Byte for byte, and the peer's close ends it."""
    with peers.peer(lambda sock: sock.sendall(FILE)) as where:
        shell.run(where.port or 0)
    assert (shell.folder / "copy").read_bytes() == FILE


# Being called -------------------------------------------------------------------------------------


def call(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def be_called(shell: Shell) -> None:
    """A line each way; the caller's close ends it. (With netcat others could call, and wait in vain.)"""
    with shell.listening() as (running, port), call(port) as caller:
        running.say(b"hello\n")
        assert peers.read_line(caller) == b"hello\n"
        if shell.is_ours:
            with pytest.raises(ConnectionRefusedError):
                call(port)
        caller.sendall(b"answer\n")
        caller.close()
        running.line(b"answer")
        assert running.end() == 0


def be_called_again(shell: Shell) -> None:
    """Three callers, one after the other."""
    with shell.listening() as (running, port):
        for number in range(3):
            with call(port) as caller:
                caller.sendall(b"caller %d\n" % number)
                running.line(b"caller %d" % number)
        assert running.process.poll() is None


def be_called_through_a_file(shell: Shell) -> None:
    """A line each way, on a UNIX socket."""
    with shell.listening() as (running, _), socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(PATIENCE)
        until = time.monotonic() + PATIENCE
        while (error := caller.connect_ex(str(shell.folder / "a.sock"))) == errno.ECONNREFUSED:
            assert time.monotonic() < until  # netcat says "Bound" before it listens
        assert error == 0
        running.say(b"hello\n")
        assert peers.read_line(caller) == b"hello\n"
        caller.sendall(b"answer\n")
        running.line(b"answer")


def hear_datagrams(shell: Shell) -> None:
    """From two callers; each is answered while it is the last one. Netcat knows the first only."""
    with shell.listening() as (running, port), contextlib.ExitStack() as stack:
        for name in (b"one", b"two")[: 2 if shell.is_ours else 1]:
            caller = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            caller.settimeout(PATIENCE)
            caller.connect(("127.0.0.1", port))
            caller.send(name + b"\n")
            running.line(name)
            running.say(b"to " + name + b"\n")
            assert caller.recv(100).strip() == b"to " + name


def take_a_file(shell: Shell) -> None:
    """Byte for byte."""
    with shell.listening() as (running, port):
        running.end_input()
        with call(port) as caller:
            caller.sendall(FILE)
        assert running.end() == 0
    assert (shell.folder / "copy").read_bytes() == FILE


def give_a_file(shell: Shell) -> None:
    """Byte for byte, and then the end."""
    with shell.listening() as (running, port), call(port) as caller:
        assert peers.read_all(caller) == FILE
        caller.close()
        assert running.end() == 0


# Looking ------------------------------------------------------------------------------------------


def look_at_a_port(shell: Shell) -> None:
    """Open is 0, closed is 1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        shell.run(listener.getsockname()[1])
    shell.run(peers.closed_port(), status=1)


def look_at_ports(shell: Shell) -> None:
    """A line for each of them; which are open is this machine's affair."""
    with shell.start() as running:
        assert running.end() in (0, 1)
        for port in range(20, 26):
            running.line(rb"127\.0\.0\.1  %d/tcp .*" % port)


def look_at_a_silent_port(shell: Shell) -> None:
    """Netcat says of it: succeeded."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        assert b"open or no answer" in shell.run(deaf.getsockname()[1], status=1)


def look_at_the_bytes(shell: Shell) -> None:
    """Both directions, in a file."""
    with peers.peer(peers.answer_and_close) as where:
        assert shell.run(where.port or 0) == b"goodbye to "
    dump = (shell.folder / "dump").read_text(encoding="ascii")
    assert "<- 00000000  67 6f 6f 64 62 79 65 20  74 6f 20                 |goodbye to |\n" in dump


# Serving ------------------------------------------------------------------------------------------


def be_served_tls(shell: Shell) -> None:
    """A server with a certificate that nobody has issued."""
    server = ["bothends", "serve", "upper", "tls://127.0.0.1:0", "--tls-self-signed"]
    server[0] = str(FOLDER / "bothends")
    with Running(server) as serving:
        port = int(serving.error_line(rb"  tls://127\.0\.0\.1:(\d+)")[1])
        with shell.start(port) as running:
            running.say(b"hello\n")
            running.line(b"HELLO")


def serve_an_echo(shell: Shell) -> None:
    """Two at once."""
    with shell.listening() as (_, port), call(port) as one, call(port) as two:
        for caller in (two, one):
            caller.sendall(b"hello\n")
            assert peers.read_line(caller) == b"hello\n"


def serve_a_command(shell: Shell) -> None:
    """It answers at the end of its input."""
    with shell.listening() as (_, port), call(port) as caller:
        caller.sendall(b"b\na\nb\n")
        caller.shutdown(socket.SHUT_WR)
        assert peers.read_all(caller) == b"a\nb\n"


def serve_a_chat(shell: Shell) -> None:
    """What one says, the other hears."""
    with shell.listening() as (_, port), call(port) as one, call(port) as two:
        assert peers.read_line(one).endswith(b" joined\n")
        one.sendall(b"hello, all\n")
        assert peers.read_line(two).endswith(b": hello, all\n")


@dataclass(frozen=True)
class Habit:
    """A line of netcat's, ours, and what both must do. `alone`: netcat does something else, or it is ncat."""

    netcat: str
    ours: str
    scenario: Scenario
    alone: bool = False

    def __str__(self) -> str:
        return self.ours


CALL = "bothends connect"
HERE = "127.0.0.1 12000"
HABITS = [
    Habit(f"nc {HERE}", f"{CALL} {HERE}", talk),
    Habit(f"echo hello | nc -N {HERE}", f"echo hello | {CALL} {HERE}", ask),
    Habit(f"echo hello | nc -q 1 {HERE}", f"echo hello | {CALL} -q 1 {HERE}", ask_one_that_stays, alone=True),
    Habit(f"nc -w 1 {HERE}", f"{CALL} -w 1 {HERE}", ask_one_that_is_silent),
    Habit(f"nc -n {HERE}", f"{CALL} -n {HERE}", talk),
    Habit("nc -4 localhost 12000", f"{CALL} -4 localhost 12000", talk),
    Habit(f"nc -v {HERE}", f"{CALL} -v {HERE}", be_told),
    Habit(f"nc -s 127.0.0.2 -p 12001 {HERE}", f"{CALL} -s 127.0.0.2 -p 12001 {HERE}", come_from),
    Habit(
        f"printf 'GET / HTTP/1.0\\n\\n' | nc -C {HERE}",
        f"printf 'GET / HTTP/1.0\\n\\n' | {CALL} -C {HERE}",
        ask_http,
    ),
    Habit("nc -U a.sock", f"{CALL} -U a.sock", talk_through_a_file),
    Habit(f"nc -u {HERE}", f"{CALL} -u {HERE}", talk_in_datagrams),
    Habit(f"echo hello | nc -u -w 1 {HERE}", f"{CALL} -u {HERE} --send hello", ask_in_a_datagram),
    Habit("nc -l 12000", f"{CALL} -l 12000", be_called),
    Habit("nc -l -p 12000", f"{CALL} -l -p 12000", be_called),
    Habit("nc -lk 12000", f"{CALL} -lk 12000", be_called_again),
    Habit("nc -lU a.sock", f"{CALL} -lU a.sock", be_called_through_a_file),
    Habit("nc -lu 12000", f"{CALL} -lu 12000", hear_datagrams),
    Habit("nc -l 12000 > copy", f"{CALL} -l 12000 > copy", take_a_file),
    Habit(f"nc -N {HERE} < file", f"{CALL} {HERE} < file", send_a_file),
    Habit("nc -N -l 12000 < file", f"{CALL} -l 12000 < file", give_a_file),
    Habit(f"nc -d {HERE} > copy", f"{CALL} {HERE} < /dev/null > copy", fetch_a_file),
    Habit(f"nc -z {HERE}", f"{CALL} -z {HERE}", look_at_a_port),
    Habit("nc -zv 127.0.0.1 20-25", f"{CALL} -zv 127.0.0.1 20-25", look_at_ports, alone=True),
    Habit(f"nc -zu {HERE}", f"{CALL} -zu {HERE}", look_at_a_silent_port, alone=True),
    Habit(f"ncat -x dump {HERE}", f"{CALL} --hex {HERE} 2> dump", look_at_the_bytes, alone=True),
    Habit(f"ncat --ssl {HERE}", f"{CALL} tls://127.0.0.1:12000 --insecure", be_served_tls, alone=True),
    Habit(
        f"ncat -lk -e /bin/cat {HERE}", "bothends serve echo tcp://127.0.0.1:12000", serve_an_echo, alone=True
    ),
    Habit(
        f"ncat -lk -c 'sort -u' {HERE}",
        "bothends serve --exec 'sort -u' tcp://127.0.0.1:12000",
        serve_a_command,
        alone=True,
    ),
    Habit(f"ncat -l --chat {HERE}", "bothends serve chat tcp://127.0.0.1:12000", serve_a_chat, alone=True),
]


def is_openbsds() -> bool:
    """Whether there is a netcat, and it is the one of which the table speaks."""
    path = find_tool("nc")
    if path is None:
        return False
    told = subprocess.run([path, "-h"], capture_output=True, timeout=PATIENCE, check=False)
    return b"OpenBSD" in told.stdout + told.stderr


def test_the_guide_has_these_lines_and_no_others() -> None:
    rows = [
        tuple(re.findall(r"`((?:\\\||[^`])+)`", row)[:2])
        for row in GUIDE.read_text(encoding="utf-8").splitlines()
        if row.startswith("| `")
    ]
    assert [tuple(cell.replace("\\|", "|") for cell in row) for row in rows] == [
        (habit.netcat, habit.ours) for habit in HABITS
    ]


@pytest.mark.parametrize("habit", HABITS, ids=str)
def test_ours(habit: Habit, tmp_path: Path) -> None:
    habit.scenario(Shell(habit.ours, tmp_path))


@pytest.mark.skipif(not is_openbsds(), reason="OpenBSD's nc isn't installed")
@pytest.mark.parametrize("habit", [each for each in HABITS if not each.alone], ids=lambda each: each.netcat)
def test_netcats_does_the_same(habit: Habit, tmp_path: Path) -> None:
    habit.scenario(Shell(habit.netcat, tmp_path))
