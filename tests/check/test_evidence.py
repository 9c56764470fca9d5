"""`--trace` draws what failed, and `--wire` puts a whole suite on a bad path."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.check.helpers import OURS, script
from tests.check.test_server import SLIDE
from tests.tools import needs_tool
from tests.wire.hosts import needs_hosts


def check(*words: str, within: float = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*OURS, "check", "server", "--contract", "upper-tcp", *words],
        capture_output=True, text=True, timeout=within, check=False, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip


@needs_tool("strace")
def test_a_failure_has_the_picture_of_its_own_calls(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    command = script(tmp_path, SLIDE)
    done = check("--only", "tcp-restart", "--trace", str(folder), "--", *command)
    assert done.returncode == 1, done.stderr
    page = folder / "tcp-restart.html"
    assert f"picture   {page}" in done.stdout
    assert {each.name for each in folder.iterdir()} == {"tcp-restart.html", "tcp-restart.trace"}
    assert "EADDRINUSE" in page.read_text(encoding="utf-8")
    opened = subprocess.run(
        [*OURS, "trace", "--open", str(folder / "tcp-restart.trace")],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert "= EADDRINUSE" in opened.stdout
    assert "finding  The port is in use" in opened.stdout


@needs_tool("strace")
def test_what_passes_is_not_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    done = check("--only", "tcp-split-write", "--trace", str(folder), "--", *OURS, *SERVES)
    assert done.returncode == 0, done.stdout
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--wire", "loss=5%", "--endpoint", "tcp://127.0.0.1:1"), "a program that is started here"),
        (("--wire", "loss=5%", "--sandbox", "--", "true"), "not together with --sandbox"),
        (("--wire", "los=5%", "--", "true"), "--loss"),
        (("--wire", "loss=much", "--", "true"), "loss"),
    ],
)
def test_a_wire_that_cannot_be_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = check(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


SERVES = ("serve", "upper", "tcp://127.0.0.1:{port}", "-q")


@needs_hosts
def test_a_right_server_is_right_over_a_bad_path() -> None:
    cases = ("tcp-split-delimiter", "tcp-half-close", "tcp-large")
    only = [word for case in cases for word in ("--only", case)]
    done = check("--json", *only, "--wire", "loss=3%,delay=10ms", "--", *OURS, *SERVES)
    result = json.loads(done.stdout)
    assert done.returncode == 0, result
    assert result["counts"]["PASS"] == 1 + len(cases)


@pytest.mark.slow
@pytest.mark.timeout(1000)  # a thousand connections, one after the other, and some knock for seconds
@needs_hosts
def test_a_whole_suite_runs_over_a_bad_path() -> None:
    done = check("--json", "--wire", "loss=5%,delay=40ms", "--", *OURS, *SERVES, within=950)
    result = json.loads(done.stdout)
    failed = [each for each in result["outcomes"] if each["verdict"] == "FAIL"]
    assert not failed, failed
    assert result["counts"]["PASS"] >= 25
