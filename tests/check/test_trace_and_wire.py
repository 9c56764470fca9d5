"""`--trace` writes pages about failed cases, and `--wire` runs a suite over an impaired path."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.check.helpers import BOTHENDS_COMMAND, write_server_script
from tests.check.test_server import TEXTBOOK_SERVER
from tests.tools import needs_tool
from tests.trace.running import page_data
from tests.wire.hosts import needs_hosts


def check(*arguments: str, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BOTHENDS_COMMAND, "check", "server", "--contract", "upper-tcp", *arguments],
        capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip


@needs_tool("strace")
def test_failed_case_with_trace_writes_page_and_trace_file(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    command = write_server_script(tmp_path, TEXTBOOK_SERVER)
    done = check("--only", "tcp-restart", "--trace", str(folder), "--", *command)
    assert done.returncode == 1, done.stderr
    page = folder / "tcp-restart.html"
    assert f"picture   {page}" in done.stdout
    assert {each.name for each in folder.iterdir()} == {"tcp-restart.html", "tcp-restart.trace"}
    assert "EADDRINUSE" in str(page_data(page.read_text(encoding="utf-8")))
    opened = subprocess.run(
        [*BOTHENDS_COMMAND, "trace", "--open", str(folder / "tcp-restart.trace")],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert "= EADDRINUSE" in opened.stdout
    assert "finding  The port is in use" in opened.stdout


@pytest.mark.slow
@needs_tool("strace")
def test_passing_case_writes_no_trace(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    done = check("--only", "tcp-split-write", "--trace", str(folder), "--", *BOTHENDS_COMMAND, *SERVE_UPPER)
    assert done.returncode == 0, done.stdout
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--wire", "loss=5%", "--endpoint", "tcp://127.0.0.1:1"), "a program that bothends starts"),
        (("--wire", "loss=5%", "--sandbox", "--", "true"), "excludes --sandbox"),
        (("--wire", "los=5%", "--", "true"), "did you mean 'loss'"),
        (("--wire", "loss=much", "--", "true"), "loss"),
    ],
)
def test_invalid_wire_option_is_usage_error(arguments: tuple[str, ...], message: str) -> None:
    done = check(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


SERVE_UPPER = ("serve", "upper", "tcp://127.0.0.1:{port}", "-q")


@needs_hosts
def test_correct_server_over_lossy_wire_passes() -> None:
    cases = ("tcp-split-delimiter", "tcp-half-close", "tcp-large")
    only = [word for case in cases for word in ("--only", case)]
    done = check("--json", *only, "--wire", "loss=3%,delay=10ms", "--", *BOTHENDS_COMMAND, *SERVE_UPPER)
    result = json.loads(done.stdout)
    assert done.returncode == 0, result
    assert result["counts"]["PASS"] == 2 + len(cases)  # and the two that must pass first


@pytest.mark.slow
@pytest.mark.timeout(1000)  # a thousand connections one after another, some with SYN retransmissions
@needs_hosts
def test_full_suite_over_lossy_wire_passes() -> None:
    done = check("--json", "--wire", "loss=5%,delay=40ms", "--", *BOTHENDS_COMMAND, *SERVE_UPPER, timeout=950)
    result = json.loads(done.stdout)
    failed = [each for each in result["outcomes"] if each["verdict"] == "FAIL"]
    assert not failed, failed
    assert result["counts"]["PASS"] >= 25
