"""Servers that leave after one client or one datagram: seen, and one failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.case import Verdict
from tests.check.helpers import failed_cases, format_failures, judge, write_server_script

DATAGRAM_SERVER = """
import signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", int(sys.argv[1])))
{loop}
"""
STREAM_SERVER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
connection, _ = listener.accept()
with connection, connection.makefile("rwb") as stream:
    for line in stream:
        stream.write(line.upper())
        stream.flush()
"""


def test_discard_that_reads_everything_passes(tmp_path: Path) -> None:
    loop = "while True:\n    sock.recv(65535)"
    command = write_server_script(tmp_path, DATAGRAM_SERVER.replace("{loop}", loop))
    result = judge(command, "discard-udp")
    assert not result.failed, format_failures(result)
    assert result.counts[Verdict.PASS] == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loop", "happened"),
    [
        ("sock.recv(65535)", "the server exited: exit status 0"),
        ("sock.recv(65535); sock.recv(65535)", "the server exited: exit status 0"),
        ("sock.recv(65535)\nwhile True:\n    signal.pause()", "stay in its receive buffer"),
        ("while True:\n    signal.pause()", "stay in its receive buffer"),
    ],
)
def test_discard_that_stops_reading_fails(loop: str, happened: str, tmp_path: Path) -> None:
    command = write_server_script(tmp_path, DATAGRAM_SERVER.replace("{loop}", loop))
    result = judge(command, "discard-udp", "udp-client-gone", "udp-sigterm", timeout=0.5)
    assert result.failed
    assert happened in format_failures(result)


def test_server_that_exits_with_a_client_in_its_queue_is_not_idle(tmp_path: Path) -> None:
    text = STREAM_SERVER + "import time\ntime.sleep(0.2)  # meanwhile the next client connects\n"
    result = judge(write_server_script(tmp_path, text), "upper-tcp", "tcp-idle-cpu")
    assert failed_cases(result) == {"tcp-idle-cpu"}, format_failures(result)
    assert "the server exited" in format_failures(result)


def test_one_datagram_and_out_is_one_failure(tmp_path: Path) -> None:
    command = write_server_script(tmp_path, DATAGRAM_SERVER.replace("{loop}", "sock.recv(65535)"))
    result = judge(command, "discard-udp")
    [failed] = [each for each in result.outcomes if each.verdict is Verdict.FAIL]
    assert failed.likely_cause == "serves one client, and exits"
    skipped = [each.detail for each in result.outcomes if "exits after one client" in each.detail]
    assert len(skipped) == 3
    assert all(failed.case in detail for detail in skipped)


def test_one_stream_client_and_out_is_one_failure(tmp_path: Path) -> None:
    only = ("tcp-silent-client", "tcp-several-messages", "tcp-reset", "tcp-descriptors", "tcp-half-close")
    result = judge(write_server_script(tmp_path, STREAM_SERVER), "upper-tcp", *only)
    verdicts = {each.case: each.verdict for each in result.outcomes}
    # A reset ends it with a traceback, which is a failure of its own.
    assert failed_cases(result) == {"tcp-silent-client", "tcp-reset"}, format_failures(result)
    assert verdicts["tcp-several-messages"] is verdicts["tcp-half-close"] is Verdict.PASS
    assert verdicts["tcp-descriptors"] is Verdict.SKIP


@pytest.mark.slow
def test_exit_for_another_reason_stays_its_own_failure(tmp_path: Path) -> None:
    text = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rwb") as stream:
        served = 0
        try:
            for line in stream:
                served += 1
                stream.write(line.upper())
                stream.flush()
        except OSError:
            sys.exit(0)
        if not served:
            sys.exit(0)
"""
    result = judge(write_server_script(tmp_path, text), "upper-tcp", "tcp-silent-client", "tcp-reset")
    assert failed_cases(result) == {"tcp-silent-client", "tcp-reset"}, format_failures(result)


@pytest.mark.slow
def test_failures_do_not_change_the_total(tmp_path: Path) -> None:
    wrong = STREAM_SERVER.replace("line.upper()", "line.lower()")
    exits = "raise SystemExit(1)"
    only = (
        "tcp-silent-client",
        "tcp-several-messages",
        "tcp-descriptors",
        "tcp-idle-client",
        "tcp-empty-message",
    )
    results = [judge(write_server_script(tmp_path, text), "upper-tcp", *only)
               for text in (STREAM_SERVER, wrong, exits)]  # fmt: skip
    assert [result.max_points for result in results] == [6, 6, 6]
    assert [result.points for result in results[1:]] == [0, 0]
    assert 0 < results[0].points < 6
