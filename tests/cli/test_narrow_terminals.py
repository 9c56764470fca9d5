"""Tables and texts at a narrow terminal, and ^C while the command line loads."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.cli import main
from bothends.cli.terminal import _wrapped_columns
from tests.cli.terminals import terminal
from tests.interop.running import ROOT

LOSS = str(ROOT / "examples" / "lecture" / "loss.trace")


@pytest.mark.parametrize("columns", [40, 80, 130])
@pytest.mark.parametrize(
    "words",
    [["engines"], ["check", "explain", "tcp-split-write"], ["query", LOSS], ["trace", "--open", LOSS]],
    ids=lambda words: words[0],
)
def test_no_line_is_wider_than_the_terminal(columns: int, words: list[str], tmp_path: Path) -> None:
    with terminal(*words, state=tmp_path, columns=columns) as screen:
        assert screen.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.output.decode())
    titles = ("finding", "tcp-split-write  ") if columns < 62 else ("-",)  # a title is one line
    lines = [line for line in text.split("\r\n") if not line.startswith(titles)]
    assert len(lines) > 2
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize(
    ("widths", "width", "wrapped"),
    [
        ([10, 10, 50], 80, {2}),
        ([10, 10, 50], 44, {2}),
        ([10, 30, 50], 60, {1, 2}),
        ([60, 30, 50], 70, {0, 1, 2}),
        ([15, 15, 50], 40, None),
    ],
)
def test_long_columns_wrap_before_rows_become_paragraphs(
    widths: list[int], width: int, wrapped: set[int] | None
) -> None:
    if widths == [60, 30, 50]:  # the longest first
        assert _wrapped_columns(widths, 74) == {0, 2}
    assert _wrapped_columns(widths, width) == wrapped


SUBCOMMANDS = [
    ["check", each]
    for each in ("server", "client", "proxy", "list", "batch", "record", "gradescope", "classroom")
]
COMMANDS = [[verb] for verb in main.VERBS] + SUBCOMMANDS
COMMANDS += [["bench", "compare"], ["bench", "engines"], ["impair", "list"], ["impair", "add"]]


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("words", [[], *COMMANDS], ids=" ".join)
def test_help_fits_the_terminal(
    columns: int, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main.run([*words, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    if columns == 40:  # commands to copy, and choices that have no blank
        lines = [line for line in lines if not line.startswith("    ") and "|" not in line]
        lines = [line for line in lines if not line.startswith("  An endpoint is a URL")]
    assert [line for line in lines if len(line) > columns or line.endswith(" ")] == []


def test_help_of_a_group_has_whole_summaries_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["check", "--help"]) == 0
    summaries = capsys.readouterr().out.partition("Commands:")[2]
    assert "..." not in summaries
    assert summaries.index("server") < summaries.index("client") < summaries.index("batch")


def test_option_without_its_value_names_the_help_of_its_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["wire", "--loss"]) == 2
    assert capsys.readouterr().err.endswith("see bothends wire --help\n")


def test_misspelt_option_is_one_sentence_and_then_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["serve", "--max_connections", "2"]) == 2
    assert capsys.readouterr().err.endswith("'--max-connections'? see bothends serve --help\n")


def test_interrupt_while_loading_prints_no_traceback() -> None:
    # The import of click is where the process is interrupted.
    program = (
        "import sys, os, signal, importlib.abc\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'click': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from bothends.__main__ import main\n"
        "main()\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (-signal.SIGINT, "")


def test_interrupted_check_shows_the_verdicts_that_it_has(tmp_path: Path) -> None:
    silent = tmp_path / "server.py"  # it accepts, and answers nothing: most cases wait for their timeouts
    silent.write_text(
        "import socket, sys\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "kept = []\n"
        "while True: kept.append(listener.accept())\n",
        encoding="utf-8",
    )
    words = ["check", "server", "--contract", "upper-tcp", "--", "python3", str(silent), "{port}"]
    with terminal(*words, state=tmp_path, columns=100) as screen:
        screen.expect("SKIP  tcp-server-closes")
        screen.process.send_signal(signal.SIGINT)
        screen.expect("what happened")
        screen.expect("tcp-server-closes")
        screen.expect("interrupted: ")
        assert screen.wait() == 130
