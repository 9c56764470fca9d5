"""`bothends sockets`: the table as text, as JSON, and with --watch."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from bothends.cli.main import run
from bothends.cli.sockets import check_kinds, find_pids, fit_columns, join_cells
from bothends.errors import UnknownName
from bothends.socket_table import EntryAddress, SocketEntry
from bothends.socket_table.rows import cells
from tests.cli.terminals import terminal
from tests.interop.running import Running

ME = str(os.getpid())


def test_listener_row(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=9) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = sock.getsockname()[1]
        assert run(["sockets", ME, "--only", "listen"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if f":{port} " in line)
    words = line.split()
    assert words[:6] == ["tcp", "LISTEN", "0", "9", f"127.0.0.1:{port}", "-"]
    assert f"[{ME}] fd " in line
    assert words[-2:] == ["nodelay,", "reuseaddr"]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        socket.create_connection(sock.getsockname()) as client,
    ):
        port = client.getsockname()[1]
        fd = client.fileno()
        assert run(["sockets", ME, "--json"]) == 0
    (found,) = (each for each in json.loads(capsys.readouterr().out) if each["local"]["port"] == port)
    assert (found["kind"], found["state"]) == ("tcp", "ESTABLISHED")
    assert found["tcp"]["cwnd"] >= 1
    assert found["tcp"]["rtt_ms"] > 0
    assert [(each["pid"], each["fd"]) for each in found["processes"]] == [(os.getpid(), fd)]


def test_unknown_process_raises() -> None:
    with pytest.raises(UnknownName, match="there is no process 'nosuchprogram'"):
        find_pids("nosuchprogram")
    with pytest.raises(UnknownName, match="999999999"):
        find_pids("999999999")


def test_find_pids_by_number_and_by_name() -> None:
    assert find_pids(ME) == [os.getpid()]
    assert os.getpid() in find_pids(Path(sys.executable).name)


def test_unnamed_unix_sockets_show_inode() -> None:
    row = SocketEntry("unix", "stream", "", "CONNECTED", EntryAddress(), EntryAddress(), 11, peer_inode=12)
    assert cells(row)[4:6] == ["#11", "#12"]


def test_narrow_terminal_keeps_addresses_whole(tmp_path: Path) -> None:
    name = "a name that is long " * 4
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other,
        terminal("sockets", ME, state=tmp_path) as screen,
    ):
        other.bind(f"\0{name}")
        other.listen()
        screen.expect(f":{sock.getsockname()[1]}")
        assert screen.wait() == 0
    assert f"@{name}" in screen.output.decode()
    assert "…" not in screen.output.decode()


def test_watch_at_a_terminal_until_interrupted(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with terminal("sockets", ME, "--watch", "-i", "0.05", state=tmp_path) as screen:
            for _ in range(3):
                screen.expect("\x1b[2J")
                screen.expect(f":{port}")
            screen.process.send_signal(signal.SIGINT)
            assert screen.wait() == 0


def test_watch_with_json_prints_a_line_per_interval() -> None:
    command = [sys.executable, "-m", "bothends", "sockets", ME, "--watch", "-i", "0.05", "--json"]
    with socket.create_server(("127.0.0.1", 0)) as sock, Running(command) as watching:
        port = sock.getsockname()[1]
        first = watching.line(rb"(\{.*\})")
        watching.wait_for_output("a second line", lambda data: True if data.count(b"\n") > 1 else None)
        watching.process.send_signal(signal.SIGINT)
        assert watching.wait() == 0
    assert port in {each["local"]["port"] for each in json.loads(first[1])["sockets"]}


@pytest.mark.parametrize(("name", "nearest"), [("foo", ""), ("lisen", "listen"), ("UNIXX", "unix")])
def test_unknown_kind_or_state_is_refused(
    name: str, nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sockets", "--only", "tcp", "--only", name]) == 2
    message = capsys.readouterr().err
    assert f"there is no kind or state {name!r}; " in message
    assert (f"did you mean {nearest!r}" in message) == bool(nearest)


def test_known_kinds_and_states() -> None:
    check_kinds(["tcp", "tcp6", "udp6", "unix", "inet", "LISTEN", "close-wait", "unconnected", "unix stream"])


ROWS = [
    ["tcp", "ESTABLISHED", "0", "0", "192.0.2.1:12000", "192.0.2.2:40000", "python[1] fd 3", "rtt 1 ms"],
    ["unix seqpacket", "LISTEN", "0", "128", "/run/" + "x" * 100, "-", "nginx[2] fd 4, nginx[3] fd 4", ""],
]


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (150, ["kind", "state", "recv", "send", "local", "peer", "process", "more"]),
        (112, ["kind", "state", "recv", "send", "local", "peer", "process"]),
        (105, ["kind", "state", "recv", "local", "peer", "process"]),
        (94, ["kind", "state", "local", "peer", "process"]),
        (80, ["state", "local", "peer", "process"]),
        (64, ["state", "local", "process"]),
        (20, ["state", "local"]),
    ],
)
def test_narrow_terminal_leaves_out_columns(width: int, columns: list[str]) -> None:
    names, rows, widths = fit_columns(ROWS, width)
    assert names == columns
    assert [row[names.index("local")] for row in rows] == [row[4] for row in ROWS]
    if width > 60:
        assert sum(widths) + 2 * (len(widths) - 1) <= width


def test_long_address_keeps_the_columns_after_it() -> None:
    names, rows, widths = fit_columns(ROWS, 80)
    short, long = (join_cells(names, row, widths, 80).split("\n") for row in rows)
    assert len(short) == 1
    assert (len(long), long[0]) == (2, "LISTEN       " + ROWS[1][4])
    assert long[1].index("nginx") == short[0].index("python")
    assert join_cells(names, rows[1], widths, 200).count("\n") == 0


def test_narrow_terminal_shows_the_family_of_a_socket() -> None:
    names, rows, _ = fit_columns(ROWS, 88)
    assert (names[0], [row[0] for row in rows]) == ("kind", ["tcp", "unix"])


def test_columns_that_are_left_out_are_named(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        terminal("sockets", ME, state=tmp_path) as screen,
    ):
        assert screen.wait() == 0
    assert "columns left out, for want of width: " in screen.output.decode()
