"""`bothends serve` as a process: banner, log, usage errors, exit status."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from bothends.client.blocking import connect
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running, run

SERVE = [*BOTHENDS, "serve"]


def cli_error(*arguments: str, status: int) -> str:
    """Run an invalid command line; return its single error line."""
    with Running([*SERVE, *arguments]) as server:
        assert server.wait() == status, server.stderr
        server.stdout.close()
        assert str(server.stdout) == ""
        server.stderr.close()
        error = str(server.stderr)
    assert error.startswith("bothends: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


def test_banner_shows_endpoints_engine_and_commands(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Running([*SERVE, "upper", "tcp://:0", f"unix://{path}", "--engine", "select"]) as server:
        port = server.error_line(rb"  tcp://:(\d+)  every interface: .*127\.0\.0\.1.*")[1].decode()
        server.error_line(rb"  engine select: one thread waits in select.*")
        server.error_line(rb"  from here: +bothends connect tcp://127\.0\.0\.1:%s" % port.encode())
        server.error_line(rb"  from here: +bothends connect unix://.*a\.sock")
        assert run([*BOTHENDS, "connect", "--send", "hi", "127.0.0.1", port]) == b"HI\n"
        assert run([*BOTHENDS, "connect", "--send", "hi", f"unix://{path}"]) == b"HI\n"
        server.line(rb"127\.0\.0\.1#\d+: hi")
        server.line(rb"unix#\d+: hi")
        assert server.stop() == 0
    assert not path.exists()


def test_messages_go_to_stdout_and_events_to_stderr() -> None:
    with Running([*SERVE, "print", "tcp://127.0.0.1:0"]) as server:
        port = int(server.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1])
        with connect(f"tcp://127.0.0.1:{port}") as connection:
            connection.send(b"one\n\x1b[31mtwo\n")
        server.error_line(rb"127\.0\.0\.1#\d+ closed: .*")
        server.line(rb"127\.0\.0\.1#\d+: one")
        server.line(rb"127\.0\.0\.1#\d+: \\x1b\[31mtwo")
        assert server.stop() == 0


@pytest.mark.parametrize("level", [["--quiet"], ["--log-level", "problems"]], ids=lambda words: words[0])
def test_quiet_keeps_print_messages(level: list[str]) -> None:
    for service, messages in (("upper", 0), ("print", 1)):
        with Running([*SERVE, *level, service, "udp://127.0.0.1:0", "tcp://127.0.0.1:0"]) as server:
            port = int(server.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1])
            with connect(f"tcp://127.0.0.1:{port}") as connection:
                connection.exchange(b"hello")
            assert server.stop() == 0
            server.stdout.close()
            server.stderr.close()
            assert str(server.stdout).count("hello") == messages
            assert "connected" not in str(server.stderr)


@pytest.mark.spread("arguments", "status", "words", one_in=3)
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "missing SERVICE"),
        (["upper"], 2, "missing ENDPOINT; for example: bothends serve upper"),
        (["uper", "tcp://:0"], 2, "did you mean 'upper'"),
        (["upper", "tpc://:0"], 2, "did you mean 'tcp'"),
        (["upper", "tcp://:0?nodely=1"], 2, "nodelay"),
        (["upper", "tcp://:0", "--engine", "epol"], 2, "did you mean 'epoll'"),
        (["upper", "tcp://:0", "--engin", "epoll"], 2, "--engine"),
        (["chat", "udp://:0"], 2, "makes no sense on datagrams"),
        (["chat", "tcp://:0", "--engine", "fork"], 2, "does not support service chat"),
        (["chat", "tcp://:0", "--workers", "2"], 2, "in one process"),
        (["nosuch.py:shout", "tcp://:0"], 2, "there is no file"),
        (["tcp://:1"], 2, "missing SERVICE before tcp://:1; for example: bothends serve upper tcp://:1"),
        (["tcp://:1", "udp://:1"], 2, "for example: bothends serve upper tcp://:1 udp://:1"),
        ([":12000"], 2, "missing SERVICE before :12000"),
        (["tpc://:1", "udp://:1"], 2, "missing SERVICE before tpc://:1"),
        (["upper", "tcp://192.0.2.99:0"], 1, "EADDRNOTAVAIL"),
        (["upper", "unix:///nosuch/folder/a.sock"], 1, "ENOENT"),
        (["--exec", "nosuchprogram", "tcp://:0"], 69, "nosuchprogram"),
        (["--exec", "cat", "udp://:0"], 2, "datagrams"),
        (["--exec", "cat", "tcp://:0", "--engine", "fork"], 2, "--engine has no effect with --exec"),
        (["upper", "tcp://:0", "--shell"], 2, "--shell needs --exec"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], status: int, words: str) -> None:
    assert words in cli_error(*arguments, status=status)


def test_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "EADDRINUSE" in cli_error("upper", f"tcp://127.0.0.1:{taken.getsockname()[1]}", status=1)


def test_missing_address_family_exits_69() -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        assert "sctp" in cli_error("upper", "sctp://127.0.0.1:0", status=69).lower()
    else:
        pytest.skip("this kernel has SCTP")


def test_exec_output_is_complete() -> None:
    with Running([*SERVE, "--exec", "sort", "tcp://127.0.0.1:0"]) as server:
        port = server.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1].decode()
        lines = [b"%06d" % number for number in range(20_000)]
        sent = b"\n".join(reversed(lines)) + b"\n"
        assert run([*BOTHENDS, "connect", "127.0.0.1", port], sent) == b"\n".join(lines) + b"\n"
        assert server.stop() == 0


def test_exec_environment_has_peer() -> None:
    command = "printf '%s %s %s\\n' $PROTO $TCPREMOTEIP $REMOTE_ADDR"
    with Running([*SERVE, "--shell", "--exec", command, "tcp://127.0.0.1:0"]) as server:
        port = server.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1].decode()
        assert run([*BOTHENDS, "connect", "127.0.0.1", port]) == b"TCP 127.0.0.1 127.0.0.1\n"
        assert server.stop() == 0


def test_serve_on_stdio() -> None:
    output = run([*SERVE, "--quiet", "upper", "stdio:"], b"one\ntwo\n")
    assert output == b"ONE\nTWO\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", ["1", "3"])
def test_signal_exits_0_and_removes_sockets(number: int, workers: str, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Running([*SERVE, "upper", f"unix://{path}", "--workers", workers]) as server:
        server.error_line(rb"  engine .*")
        os.killpg(server.process.pid, number)  # as ^C on a terminal: to the whole process group
        assert server.wait() == 0, server.stderr
    assert not path.exists()


def test_connection_limit_defers_or_refuses() -> None:
    for policy, answered in (("refuse", False), ("defer", True)):
        command = [*SERVE, "upper", "tcp://127.0.0.1:0", "-m", "1", "--when-full", policy]
        with Running(command) as server:
            port = int(server.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1])
            with connect(f"tcp://127.0.0.1:{port}") as first:
                assert first.request(b"a") == b"A"
                second = connect(f"tcp://127.0.0.1:{port}")
                if not answered:
                    server.error_line(rb"127\.0\.0\.1#\d+ refused: 1 connections are open, the limit")
            with second:
                if answered:
                    assert second.request(b"b") == b"B"
            assert server.stop() == 0


def test_service_exception_names_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("from bothends import message\n\n@message\ndef bad(text):\n    return 1 / 0\n")
    with Running([*SERVE, f"{path}:bad", "tcp://127.0.0.1:0"]) as server:
        port = server.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1].decode()
        with connect(f"tcp://127.0.0.1:{port}") as connection:
            connection.send(b"x\n")
            assert connection.receive() == b""
        server.error_line(
            rb"127\.0\.0\.1#\d+ the service failed: ZeroDivisionError: division by zero \(bad\.py, line 5\)"
        )
        assert server.stop() == 0
