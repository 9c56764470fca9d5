"""`bothends trace --open FILE --step` at a terminal, and the options of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bothends.cli import main
from tests.cli.terminals import terminal
from tests.interop.running import ROOT

DEADLOCK = ROOT / "examples" / "lecture" / "deadlock.trace"
STEP = ["trace", "--open", str(DEADLOCK), "--step"]


def test_keys_step_forward_and_back(tmp_path: Path) -> None:
    with terminal(*STEP, state=tmp_path, columns=90) as screen:
        screen.expect("\x1b[?1049h")
        screen.expect(" 1/")
        for keys, shown in (
            ("\x1b[C", " 2/"),
            (" ", " 3/"),
            ("\x1b[B", " 4/"),
            ("\x1b[D", " 3/"),
            ("\x1b[6~", " 13/"),
            ("\x1b[5~", " 3/"),
            ("\x1b[H", " 1/"),
            ("\x1b[D", " 1/"),
            ("f", "finding: "),
            ("\x1b[F", "Remedy: "),
        ):
            screen.type(keys)
            screen.expect(shown)
        screen.type("q")
        screen.expect("\x1b[?1049l")
        assert screen.wait() == 0


@pytest.mark.parametrize("key", ["\x03", "\x1b", "\x04"])
def test_key_that_quits_restores_the_terminal(key: str, tmp_path: Path) -> None:
    with terminal(*STEP, state=tmp_path) as screen:
        screen.expect(" 1/")
        screen.type(key)
        screen.expect("\x1b[?25h\x1b[?1049l")
        assert screen.wait() == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--open", str(DEADLOCK), "--step"], "--step needs a terminal"),
        (["--step", "a.py", "b.py"], "--step needs --open FILE"),
        (["--open", str(DEADLOCK), "--step", "--json"], "--step cannot be combined with --json"),
        (["--open", str(DEADLOCK), "--animated"], "--animated needs --svg FILE"),
        (["--open", str(DEADLOCK), "--large"], "--large and --theme need --svg FILE or --pdf FILE"),
        (["--open", str(DEADLOCK), "--theme", "dark"], "--large and --theme need --svg FILE or --pdf FILE"),
    ],
)
def test_option_without_effect_is_refused(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["trace", *words]) == 2
    assert reason in capsys.readouterr().err


def test_pictures_are_written_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("a.svg", "a.pdf", "a.cast")
    options = [word for name in names for word in (f"--{name.partition('.')[2]}", str(tmp_path / name))]
    assert main.run(["trace", "--open", str(DEADLOCK), *options, "--animated", "--theme", "dark"]) == 0
    assert "finding  Each end waits" in capsys.readouterr().out
    svg, pdf, cast = ((tmp_path / name).read_bytes() for name in names)
    assert b"@keyframes" in svg
    assert pdf.startswith(b"%PDF-1.4")
    assert json.loads(cast.splitlines()[0])["width"] == 120


@pytest.mark.parametrize("option", ["--pdf", "--cast"])
def test_full_disk_is_named(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["trace", "--open", str(DEADLOCK), option, "/dev/full"]) == 1
    assert "cannot write /dev/full: ENOSPC" in capsys.readouterr().err
