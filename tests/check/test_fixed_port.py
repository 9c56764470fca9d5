"""Servers with a port in their source: no case meets what an earlier one left; one cause is one failure."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections import Counter
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import load
from bothends.check.results import SuiteResult
from bothends.check.runner import SuiteRun
from bothends.check.subjects import own_network
from bothends.check.subjects.port_in_use import describe_use, is_bindable
from bothends.check.subjects.server_under_test import ServerUnderTest
from bothends.check.suites.registry import cases
from bothends.endpoints import Endpoint
from bothends.sockets.free_port import free_port
from tests.check.helpers import failed_cases, format_failures

needs_namespaces = pytest.mark.skipif(
    not own_network.is_available(), reason="this user may not create network namespaces here"
)
# A server of one exchange without SO_REUSEADDR, which closes first, so that its port stays in TIME-WAIT.
TEXTBOOK_SERVER = """
import socket
listener = socket.socket()
listener.bind(("", {port}))
listener.listen(100)
while True:
    connection, _ = listener.accept()
    try:
        connection.send(connection.recv(1024).upper())
    except OSError:
        pass
    connection.close()
"""
# The same, but it exits after its first client, and says nothing when its port is in use.
ONE_CLIENT_SERVER = """
import socket
listener = socket.socket()
try:
    listener.bind(("", {port}))
except OSError:
    raise SystemExit(3) from None
listener.listen(100)
connection, _ = listener.accept()
connection.send(connection.recv(1024).upper())
connection.close()
# A connection of its own, which it closes first: the checker may end its with RST, which leaves no TIME-WAIT.
with socket.create_connection(("127.0.0.1", {port})) as client:
    listener.accept()[0].close()
    client.recv(1)
"""


def judge_with_fixed_port(
    folder: Path, text: str, *only: str, port: int = 0, own: bool = True
) -> tuple[SuiteResult, int]:
    """Judge a server with a port in its source. Returns: the result, and the port."""
    port = port or free_port()
    path = folder / "program.py"
    path.write_text(text.replace("{port}", str(port)), encoding="utf-8")
    server = ServerUnderTest(load("upper-tcp-once"), [sys.executable, str(path)], own_network=own)
    run = SuiteRun(server, cases("tcp"), "tcp", only=only)
    return asyncio.run(run.run()), port


@needs_namespaces
def test_earlier_case_leaves_nothing_to_fixed_port(tmp_path: Path) -> None:
    ended = (
        "tcp-sigterm",
        "tcp-restart",
        "tcp-half-close",
        "tcp-server-closes",
        "tcp-buffer-sizes",
        "tcp-reset",
    )
    result, port = judge_with_fixed_port(tmp_path, TEXTBOOK_SERVER, *ended)
    assert failed_cases(result) == {"tcp-restart"}, format_failures(result)
    [restart] = [each for each in result.outcomes if each.verdict is Verdict.FAIL]
    assert f"its port {port} is still in use" in restart.happened
    assert "in TIME-WAIT" in restart.happened
    assert "network namespace of its own" in " ".join(result.notes)
    assert is_bindable(Endpoint("tcp", host="127.0.0.1", port=port))


@needs_namespaces
def test_fixed_port_in_use_here_is_free_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result, _ = judge_with_fixed_port(tmp_path, TEXTBOOK_SERVER, "tcp-server-closes", port=port)
    assert not result.failed, format_failures(result)
    assert result.counts[Verdict.PASS] == 2


def test_without_namespaces_port_in_use_skips_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bothends.check.subjects.server_under_test._MAX_PORT_WAIT", 0.0)
    only = ("tcp-server-closes", "tcp-half-close")
    result, port = judge_with_fixed_port(tmp_path, ONE_CLIENT_SERVER, *only, own=False)
    assert [each.verdict for each in result.outcomes] == [Verdict.PASS, Verdict.SKIP, Verdict.SKIP]
    for outcome in result.outcomes[1:]:
        assert re.search(
            rf"exit status 3\): its port {port} is still in use \(\d in TIME-WAIT\)", outcome.detail
        )
    assert "in TIME-WAIT" in describe_use(Endpoint("tcp", host="127.0.0.1", port=port))


def test_server_that_starts_only_twice_fails_once(tmp_path: Path) -> None:
    start_three_times = f"""import os, socket
for number in range(3):
    try:
        os.mkdir({str(tmp_path)!r} + f"/start {{number}}")
        break
    except FileExistsError:
        pass
else:
    raise SystemExit("no more")
"""
    text = TEXTBOOK_SERVER.replace("import socket\n", start_three_times, 1)
    only = ("tcp-server-closes", "tcp-half-close", "tcp-reset")
    result, _ = judge_with_fixed_port(tmp_path, text, *only)
    verdicts = [each.verdict for each in result.outcomes]
    if own_network.is_available():
        counts = Counter(verdicts)
        assert (counts[Verdict.FAIL], counts[Verdict.SKIP], len(verdicts)) == (1, 2, 4), verdicts
        [failed] = [each for each in result.outcomes if each.verdict is Verdict.FAIL]
        assert failed.likely_cause == "the program does not start again after it has run"
        skipped = [each.detail for each in result.outcomes if each.verdict is Verdict.SKIP]
        assert all(f"as in {failed.case}" in detail for detail in skipped)
