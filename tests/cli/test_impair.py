"""`bothends impair` as a process, end to end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from bothends.cli import main
from bothends.cli.impair import live_table
from bothends.client.blocking import connect
from tests.cli.terminals import terminal
from tests.impair.running import TIMEOUT, echo, reverse, tcp_server, udp_echo_server
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running

IMPAIR = [*BOTHENDS, "impair"]


@contextlib.contextmanager
def impaired(*arguments: str) -> Iterator[tuple[Running, str]]:
    """Run a proxy; yield the process and its listening endpoint."""
    with Running([*IMPAIR, "--no-api", *arguments]) as running:
        endpoint = running.error_line(rb"  proxy: (\S+) -> .*")[1].decode()
        yield running, endpoint


def cli_output(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Run a command line in this process; return its output, or its single error line."""
    assert main.run(["impair", *arguments]) == status
    shown = capsys.readouterr()
    if not status:
        return shown.out
    assert shown.out == ""
    assert shown.err.startswith("bothends: ")
    assert shown.err.count("\n") == 1
    return shown.err


def test_latency_delays_both_directions() -> None:
    with tcp_server(echo) as server:
        arguments = ("tcp://127.0.0.1:0", str(server), "--latency", "50ms±10ms", "--seed", "7")
        with impaired(*arguments) as (impair, at):
            impair.error_line(rb"impair  seed 7")
            impair.error_line(rb"    latency_upstream: each chunk is delayed.*")
            with connect(at) as connection:
                for _ in range(5):
                    started = time.monotonic()
                    assert connection.request("hello") == b"hello"
                    assert time.monotonic() - started >= 0.080
            impair.process.send_signal(signal.SIGINT)
            assert impair.wait() == 0
            impair.error_line(rb"proxy: 1 connection, 30 bytes from clients, 30 from the server")
            impair.error_line(rb"  latency_downstream: 5 seen, 5 delayed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_exits_0_and_removes_sockets(number: int, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with tcp_server(reverse) as server:
        arguments = (f"unix://{path}", str(server), "--latency", "1h")
        with impaired(*arguments) as (impair, _), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"on its way")
            os.killpg(impair.process.pid, number)
            assert impair.wait() == 0, impair.stderr
            with contextlib.suppress(ConnectionResetError):  # the proxy closed with unread input
                assert client.recv(1) == b""
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to switch users")
def test_runs_unprivileged() -> None:
    command = [
        *IMPAIR,
        "--no-api",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:1",
        "--latency",
        "1ms",
        "--for",
        "10ms",
    ]
    try:
        subprocess.run([sys.executable, "-c", "import bothends"], user=65534, check=True, cwd="/")
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("other users cannot run this checkout")
    done = subprocess.run(command, user=65534, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "impair  seed" in done.stderr


def test_for_option_limits_duration() -> None:
    with (
        tcp_server(echo) as server,
        impaired("tcp://127.0.0.1:0", str(server), "--for", "100ms") as (impair, _),
    ):
        assert impair.wait() == 0


def lost_numbers(record: Path) -> list[int]:
    """Return the numbers of the dropped messages, from the complete lines of a recording."""
    lines = (json.loads(line) for line in record.read_text().rpartition("\n")[0].splitlines())
    return [line["place"] for line in lines if line.get("pieces") == []]


def test_recorded_loss_is_replayed(tmp_path: Path) -> None:
    record, second_record = str(tmp_path / "record"), str(tmp_path / "second")
    received = []
    for arguments in (
        ["--loss", "up:50%", "--record", record],
        ["--replay", record, "--record", second_record],
    ):
        with (
            udp_echo_server() as server,
            impaired("udp://127.0.0.1:0", str(server), *arguments) as (impair, at),
        ):
            port = int(at.rpartition(":")[2])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect(("127.0.0.1", port))
                for number in range(40):
                    client.send(b"%d" % number)
                client.settimeout(0.05)
                replies: list[bytes] = []
                deadline = time.monotonic() + TIMEOUT
                while len(replies) + len(lost_numbers(Path(arguments[-1]))) < 40:
                    assert time.monotonic() < deadline
                    with contextlib.suppress(TimeoutError):
                        replies.append(client.recv(100))
                received.append(replies)
            assert impair.stop() == 0
    assert received[0] == received[1]
    assert sorted({*range(40)} - {int(each) for each in received[0]}) == lost_numbers(Path(record))
    assert Path(record).read_text() == Path(second_record).read_text()


def test_api_verbs_control_running_proxy(capsys: pytest.CaptureFixture[str]) -> None:
    with tcp_server(echo) as server, Running([*IMPAIR, "--api", "tcp://127.0.0.1:0"]) as impair:
        port = impair.error_line(rb"  API: http://127\.0\.0\.1:(\d+)")[1].decode()
        api = ["--api", f"tcp://127.0.0.1:{port}"]

        def cli(*arguments: str, status: int = 0) -> str:
            return cli_output(capsys, *arguments, *api, status=status)

        assert cli("list") == "name  listen  upstream  state  toxics\n"
        added = re.fullmatch(
            r"db: (127\.0\.0\.1:\d+) -> (\S+)\n", cli("add", "db", "127.0.0.1:0", str(server))
        )
        assert added
        assert cli("toxic", "db", "limit-data", "down:3") == "limit_data_downstream bytes=3\n"
        assert cli("toxic", "db", "limit-data", "down:2") == "limit_data_downstream bytes=2\n"
        assert "limit_data_downstream bytes=2" in cli("list")
        assert json.loads(cli("list", "--json"))["db"]["upstream"] == added[2]
        with connect(f"tcp://{added[1]}") as connection:
            connection.send(b"hello")
            assert connection.receive() == b"he"
            assert connection.receive() == b""
        cli("add", "framed", "127.0.0.1:0", "udp://127.0.0.1:9", "--framing", "lines")
        assert json.loads(cli("list", "--json"))["framed"]["framing"] == "lines"
        assert "framing must be one of" in cli("add", "x", ":0", ":9", "--framing", "x", status=1)
        assert cli("remove", "db", "limit_data_downstream") == ""
        assert cli("remove", "db") == ""
        assert "proxy not found" in cli("remove", "db", status=1)
        assert "proxy not found" in cli("toxic", "db", "latency", "5ms", status=1)
        assert "`at` and `for` are for" in cli("toxic", "db", "latency", "5ms,at=1s", status=2)
        assert impair.stop() == 0


def test_scenario_file(tmp_path: Path) -> None:
    with tcp_server(echo) as server:
        path = tmp_path / "scenario.toml"
        path.write_text(
            f'seed = 3\n[[proxy]]\nname = "proxy"\nlisten = "tcp://127.0.0.1:0"\nupstream = "{server}"\n'
            '[[toxic]]\ntype = "limit_data"\nstream = "downstream"\nbytes = 4\n'
        )
        with impaired("--config", str(path)) as (impair, at):
            impair.error_line(rb"impair  seed 3")
            with connect(at) as connection:
                connection.send(b"hello")
                assert connection.receive() == b"hell"
            assert impair.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([":0"], 2, "expected LISTEN and UPSTREAM"),
        (["--no-api"], 2, "no proxy: give LISTEN"),
        (["--latency", "5ms"], 2, "toxics without a proxy"),
        ([":0", "127.0.0.1:1", "--latency", "5"], 2, "a time such as 50ms"),
        ([":0", "127.0.0.1:1", "--loss", "10%"], 2, "bothends wire"),
        ([":0", "127.0.0.1:1", "--blackhole", "up:at=5s"], 2, "--toxic blackhole,at=5s"),
        ([":0", "127.0.0.1:1", "--toxic", "latenzy,5ms"], 2, "did you mean 'latency'"),
        ([":0", "127.0.0.1:0"], 1, "port 0 is for listening"),
        ([":0", "udp://127.0.0.1:1"], 2, "both must be streams, or neither"),
        ([":0", "tls://127.0.0.1:1"], 2, "pass through tcp:// unchanged"),
        (["tcp://192.0.2.9:0", "127.0.0.1:1"], 1, "EADDRNOTAVAIL"),
        (["--config", "/nosuch.toml"], 1, "ENOENT"),
        ([":0", "127.0.0.1:1", "--replay", "/nosuch"], 1, "ENOENT"),
        ([":0", "127.0.0.1:1", "--for", "soon"], 2, "not a duration; for example 30s"),
        (["list", "--api", "127.0.0.1:1"], 1, "ECONNREFUSED"),
    ],
)
def test_usage_errors_are_one_line(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in cli_output(capsys, *arguments, status=status)


def test_toxics_with_replay_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record"
    path.write_text('{"impair": 1}\n')
    arguments = (":0", "127.0.0.1:1", "--replay", str(path), "--latency", "5ms")
    assert "--replay cannot be combined with toxics" in cli_output(capsys, *arguments, status=2)


def test_replay_of_unknown_proxy_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record"
    stage = '{"stage": 1, "proxy": "db", "connection": 1, "direction": "upstream", "toxic": "a", "place": 0}'
    path.write_text('{"impair": 1}\n' + stage)
    assert "decisions for 'db'" in cli_output(capsys, ":0", "127.0.0.1:1", "--replay", str(path), status=2)


def test_malformed_record_error_names_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record"
    path.write_text('{"impair": 1}\nhello\n')
    assert "line 2" in cli_output(capsys, ":0", "127.0.0.1:1", "--replay", str(path), status=2)


def test_live_table_at_a_terminal(tmp_path: Path) -> None:
    with tcp_server(echo) as server:
        arguments = ("impair", "--no-api", "tcp://127.0.0.1:0", str(server), "--slicer", "down:2")
        with terminal(*arguments, state=tmp_path) as screen:
            screen.expect("proxy: ")
            screen.expect_match(re.compile(rb"0 open of 0"))
            port = int(re.search(rb"127\.0\.0\.1:(\d+)", screen.output)[1])  # type: ignore[index]
            with connect(f"tcp://127.0.0.1:{port}") as connection:
                assert connection.request("hello") == b"hello"
                screen.expect_match(re.compile(rb"1 open of 1 +6 B +6 B .*slicer_downstream .*1 seen, 1 cut"))
            os.kill(screen.process.pid, signal.SIGINT)
            assert screen.wait() == 0


def test_narrow_live_table_has_toxics_below(tmp_path: Path) -> None:
    with tcp_server(echo) as server:
        arguments = ("impair", "--no-api", "tcp://127.0.0.1:0", str(server), "--slicer", "down:2")
        with terminal(*arguments, state=tmp_path, columns=40) as screen:
            screen.expect_match(re.compile(rb"0 open of 0 +0 B +0 B +\r\n  slicer_downstream: 0 seen"))
            os.kill(screen.process.pid, signal.SIGINT)
            assert screen.wait() == 0
    assert "\N{HORIZONTAL ELLIPSIS}".encode() not in screen.output


def test_live_table_erases_the_rows_that_a_narrower_window_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for width, wrapped in ((64, 0), (40, 2), (20, 6)):
        console = Console(file=io.StringIO(), force_terminal=True, width=width)
        live_table._erase_wrapped(console, [0, 64, 64])
        assert console.file.getvalue() == "\x1b[2K\x1b[1A" * wrapped  # type: ignore[attr-defined]


def test_terminal_hangup_exits(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with tcp_server(echo) as server:
        arguments = ("impair", "--no-api", f"unix://{path}", str(server))
        with terminal(*arguments, state=tmp_path) as screen:
            screen.expect("0 open of 0")
            os.kill(screen.process.pid, signal.SIGHUP)
            assert screen.wait() == 0
    assert not path.exists()
