"""Judging servers: those of bothends, a textbook one, and programs that do not listen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.subjects.listening import listeners
from bothends.endpoints import Endpoint
from bothends.server import serve
from bothends.sockets.free_port import free_port
from bothends.starters.writing import make_starter
from tests.check.helpers import BOTHENDS_COMMAND, failed_cases, format_failures, judge, write_server_script
from tests.tools import find_tool

TEXTBOOK_SERVER = """
import sys
from socket import *
s = socket(AF_INET, SOCK_STREAM)
s.bind(('', int(sys.argv[1])))
s.listen(1)
while True:
    c, a = s.accept()
    sentence = c.recv(1024).decode()
    c.send(sentence.upper().encode())
    c.close()
"""


def test_bothends_serve_fails_nothing() -> None:
    result = judge([*BOTHENDS_COMMAND, "serve", "upper", "tcp://127.0.0.1:{port}", "-q"])
    assert not result.failed, format_failures(result)
    assert result.counts[Verdict.PASS] >= 25


@pytest.mark.slow
def test_endless_reply_is_judged_by_its_beginning() -> None:
    result = judge([*BOTHENDS_COMMAND, "serve", "chargen", "tcp://127.0.0.1:{port}", "-q"], "chargen-tcp")
    assert not result.failed, format_failures(result)
    assert result.counts[Verdict.PASS] >= 12
    with serve("daytime", "tcp://127.0.0.1:0") as server:
        result = judge([], "chargen-tcp", "tcp-one-message", endpoint=str(server.endpoints[0]))
    assert failed_cases(result) == {"tcp-one-message"}
    assert "before EOF" in format_failures(result)


def test_textbook_server_fails_expected_cases(tmp_path: Path) -> None:
    result = judge(write_server_script(tmp_path, TEXTBOOK_SERVER), timeout=1.0)
    assert failed_cases(result) == {
        "tcp-several-messages", "tcp-split-write", "tcp-binary", "tcp-idle-client",
        "tcp-reset-before-accept", "tcp-reply-unread", "tcp-restart", "tcp-burst",
    }, format_failures(result)  # fmt: skip
    split = next(each for each in result.outcomes if each.case == "tcp-split-write")
    assert "one message" in split.likely_cause
    assert any('"M"' in entry.event for entry in split.transcript)


def test_transcript_of_datagrams_has_no_connection(tmp_path: Path) -> None:
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.bind(('127.0.0.1', int(sys.argv[1])))\n"
        "while True: s.sendto(b'no', s.recvfrom(99)[1])\n"
    )
    result = judge(write_server_script(tmp_path, program), "upper-udp", "udp-one-message")
    events = [entry.event for entry in result.outcomes[0].transcript if entry.actor == "client"]
    assert events[0] == "opens a socket"
    assert not any("connect" in event for event in events)


def test_server_exiting_at_start_is_one_failure_with_stderr(tmp_path: Path) -> None:
    result = judge(write_server_script(tmp_path, "raise SystemExit('no such luck')"))
    first, *others = result.outcomes
    assert first.verdict is Verdict.FAIL
    assert "exit status 1" in first.happened
    assert first.stderr_tail == "no such luck"
    assert {each.verdict for each in others} == {Verdict.SKIP}


@pytest.mark.parametrize(("port", "note"), [("fixed", "the program's endpoint is fixed"), ("ephemeral", "")])
def test_server_ignoring_port_is_located(port: str, note: str, tmp_path: Path) -> None:
    number = free_port() if port == "fixed" else 0
    text = make_starter("server", "python", "tcp").text.replace("int(sys.argv[1])", str(number))
    result = judge(
        write_server_script(tmp_path, text)[:-1], "upper-tcp", "tcp-restart", "tcp-several-messages"
    )
    assert not result.failed, format_failures(result)
    assert note in " ".join(result.notes)
    restart = next(each for each in result.outcomes if each.case == "tcp-restart")
    assert restart.verdict is (Verdict.PASS if number else Verdict.SKIP)


@pytest.mark.parametrize("printed", [0, 1])
def test_server_with_two_ports_is_checked_on_printed_one(printed: int, tmp_path: Path) -> None:
    text = make_starter("server", "python", "tcp").text
    opened = "both = [socket.create_server(('127.0.0.1', 0)) for _ in range(2)]\nlistener = both[{printed}]\n"
    opened += "print('listening on', listener.getsockname()[1], flush=True)"
    created = 'listener = socket.create_server(("", int(sys.argv[1])), backlog=128)'
    assert created in text
    text = text.replace(created, opened.replace("\n", "\n    ").replace("{printed}", str(printed)))
    result = judge(write_server_script(tmp_path, text)[:-1], "upper-tcp", "tcp-several-messages")
    assert not result.failed, format_failures(result)


@pytest.mark.parametrize("host", ["::ffff:127.0.0.1", "::", "127.0.0.1", "0.0.0.0"])
def test_listeners_reports_ipv4_address(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        endpoint = Endpoint("udp", host="127.0.0.1", port=sock.getsockname()[1])
        assert endpoint in listeners([os.getpid()], "udp")


def test_reply_without_eof_is_read_up_to_limit(tmp_path: Path) -> None:
    text = """
import socket, sys
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    try:
        while True:
            connection.sendall(b'HTTP/1.0 200 OK\\r\\n' * 4096)
    except OSError:
        pass
"""
    result = judge(write_server_script(tmp_path, text), "http-file", "tcp-one-message")
    assert [each.happened for each in result.outcomes] == ["more than 32 MiB were received without EOF"]


def test_daemonizing_server_is_reported_and_killed(tmp_path: Path) -> None:
    seconds = f"1000.{os.getpid()}"
    path = tmp_path / "daemon.py"
    sleep = f"os.execve('/bin/sleep', ['sleep', '{seconds}'], {{}})"
    path.write_text(f"import os\nif os.fork() == 0:\n    os.setsid()\n    {sleep}\n", encoding="utf-8")
    done = subprocess.run(
        [*BOTHENDS_COMMAND, "check", "server", "--contract", "upper-tcp", "--", sys.executable, str(path)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "a server must stay in the foreground" in done.stdout
    commands = [_command_of(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    assert b"sleep\0%b\0" % seconds.encode() not in commands


def _command_of(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.spread("arguments", "message", one_in=3)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--endpoint", "udp://127.0.0.1:1"), "the contract is for tcp, not udp"),
        (("--only", "udp-empty", "--", "true"), "udp-empty is a case of suite 'udp'"),
        (("--only", "tcp-bursts", "--", "true"), "did you mean 'tcp-burst'?"),
        (("--report", "html=/nowhere/page", "--", "true"), "cannot write /nowhere/page: ENOENT"),
        (("--trace", "/dev/null/pages", "--", "true"), "cannot make /dev/null/pages: ENOTDIR"),
        (("--report", "pdf", "--", "true"), "there is no report format 'pdf'"),
        ((), "no program to check"),
        (("--", "/nowhere/server"), "cannot start /nowhere/server: ENOENT"),
    ],
)
def test_invalid_command_line_is_one_line_error(arguments: tuple[str, ...], message: str) -> None:
    if "--trace" in arguments and find_tool("strace") is None:
        pytest.skip("strace isn't installed")
    done = subprocess.run(
        [*BOTHENDS_COMMAND, "check", "server", "--contract", "upper-tcp", *arguments],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert not done.stdout
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_report_in_a_file_leaves_the_score_on_stderr(tmp_path: Path) -> None:
    with serve("upper", "tcp://127.0.0.1:0") as server:
        done = subprocess.run(
            [*BOTHENDS_COMMAND, "check", "server", "--contract", "upper-tcp", "--only", "tcp-split-write",
             "--endpoint", str(server.endpoints[0]), "--report", f"html={tmp_path / 'page.html'}"],
            capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert "PASS; 2 of 2 points; " in done.stderr


@pytest.mark.slow  # waits for two replies that don't come
def test_silence_of_a_datagram_server_is_not_explained_by_a_guess() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        endpoint = f"udp://127.0.0.1:{silent.getsockname()[1]}"
        (outcome,) = judge([], "upper-udp", "udp-one-message", endpoint=endpoint).outcomes
    assert outcome.verdict is Verdict.FAIL
    assert "bothends trace shows which" in outcome.likely_cause


def test_running_server_skips_cases_needing_process() -> None:
    with serve("upper", "tcp://127.0.0.1:0") as server:
        result = judge([], "upper-tcp", "tcp-split-write", "tcp-sigterm", endpoint=str(server.endpoints[0]))
    verdicts = {each.case: each.verdict for each in result.outcomes}
    assert verdicts == {
        "tcp-one-message": Verdict.PASS, "tcp-split-write": Verdict.PASS, "tcp-sigterm": Verdict.SKIP,
    }  # fmt: skip
