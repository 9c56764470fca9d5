"""`bothends demo`, which is what `make demo` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.cli.main import run as run_here
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import run


def test_demo_shows_tcp_and_udp() -> None:
    shown = run([*BOTHENDS, "demo"]).decode()
    assert shown.count("client  hello\n") == 2
    assert shown.count("server  HELLO\n") == 2
    assert shown.count("server  GRÖSSE, NAÏVETÉ, É\n") == 2
    assert "bothends connect tcp://127.0.0.1:12000" in shown
    assert "\x1b" not in shown


def test_demo_names_itself_as_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / ".venv/bin/bothends"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert run_here(["demo"]) == 0
    assert "\n  .venv/bin/bothends connect" in capsys.readouterr().out
    monkeypatch.setenv("PATH", str(program.parent))
    assert run_here(["demo"]) == 0
    assert "\n  bothends connect" in capsys.readouterr().out
