"""Files and Python functions in the texts of scenes, and texts that may come later."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import Contract, parse
from bothends.errors import ConfigurationError, ServiceError
from tests.check.helpers import BOTHENDS_COMMAND, format_failures, judge
from tests.check.scenes.test_servers import outcome

HEAD = """
transport = "tcp"
framing = "lines"
functions = "own.py"
[files]
"notes.txt" = "NOTES"
[[scene]]
name = "s"
talk = '''
"""
FUNCTIONS = """
import os

def twice(values):
    return values["word"] * 2

def even(message, values):
    assert values["word"]
    return None if len(message) % 2 == 0 else f"{len(message)} is odd"

def number(values):
    return 7

def fails(message, values):
    raise ValueError("oops")

NAME = "x"
"""
ECHO = [sys.executable, "-m", "bothends", "serve", "upper", "tcp://127.0.0.1:{port}"]


def make(folder: Path, talk: str, *, allow_code: bool = True) -> Contract:
    (folder / "own.py").write_text(FUNCTIONS)
    (folder / "lines.txt").write_text("A\nB")
    (folder / "text.txt").write_text("ABC")
    return parse(f"{HEAD}{talk}\n'''\n", "own.toml", "own", folder, allow_code=allow_code)


def play(folder: Path, talk: str) -> tuple[Verdict, str]:
    result = judge(ECHO, make(folder, talk), "scene-s", timeout=0.5)
    found = outcome(result, "scene-s")
    return found.verdict, f"{found.expected}; {found.happened}; {found.detail}"


def test_files_and_functions_are_sent_and_expected(tmp_path: Path) -> None:
    talk = r"""
a> <{file:text.txt}>{file:notes.txt} word
a< <{file:text.txt}>{file:notes.txt} {word=\w+}
a> {twice()}!
a< WORDWORD!
a> {twice()}
a< (checked by even)
a> AND THEN
a> MORE
a> LAST
a< (within 2 s) (eventually) LAST
"""
    assert play(tmp_path, talk)[0] is Verdict.PASS, play(tmp_path, talk)


@pytest.mark.spread("talk", "verdict", "text", one_in=6)
@pytest.mark.parametrize(
    ("talk", "verdict", "text"),
    [
        ("a> 123\na< {word=.*}\na> 1\na< (checked by even)", "FAIL", '"1" (1 byte): 1 is odd'),
        (
            "a> 1\na< {word=.*}\na> {number()}\na< 7",
            "SKIP",
            "function number() returned int; a text must be bytes",
        ),
        ("a> 1\na< (checked by fails)", "SKIP", "the contract's function fails() raised ValueError('oops')"),
        ("a> 1\na> 2\na< (eventually) 3", "FAIL", r'a received only "1\n2" (3 bytes) within'),
    ],
)
def test_verdicts(talk: str, verdict: str, text: str, tmp_path: Path) -> None:
    found, description = play(tmp_path, talk)
    assert (found.value, text in description) == (verdict, True), description


@pytest.mark.parametrize(
    ("talk", "message"),
    [
        ("a> {file:no.txt}", "line 1: there is no file 'no.txt' in [files] or in the contract's folder"),
        ("a> {file:../out.txt}", "the file '../out.txt' is not in the contract's folder"),
        ("a> {file:/etc/passwd}", "is not in the contract's folder"),
        ("a> {file:link}", "is not in the contract's folder"),
        ("a> {file:sub}", "there is no file 'sub'"),
        ("a> {file:pipe}", "there is no file 'pipe'"),
        ("a> {bytes:99999999}", "{bytes:99999999} is larger than 16,777,216 bytes"),
        ("a> {twise()}", "own.py has no function 'twise'; did you mean 'twice'?"),
        ("a< (checked by NAME)", "own.py has no function 'NAME'"),
        ("a< (checked by 1)", "(checked by 1) names no Python function"),
        ("a> {file:lines.txt}", r"a line cannot contain \n"),
        ("a< (eventually)", "(eventually) has no text after it"),
        ("a> x\na< (eventually) (closes)", "(eventually) is for texts, not for (closes)"),
    ],
)  # fmt: skip
def test_what_cannot_be_named(talk: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "contract"
    folder.mkdir()
    (tmp_path / "out.txt").touch()
    (folder / "link").symlink_to(tmp_path / "out.txt")
    (folder / "sub").mkdir()
    subprocess.run(["mkfifo", folder / "pipe"], check=True)
    with pytest.raises(ConfigurationError) as raised:
        make(folder, talk)
    assert message in str(raised.value)
    line = HEAD.count("\n") + talk.count("\n") + 1
    assert str(raised.value).startswith(f"own.toml:{line}, scene 's': line {talk.count(chr(10)) + 1}: ")


def test_functions_need_permission_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"it runs the Python code in 'own.py'; if you trust"):
        make(tmp_path, "a> x", allow_code=False)
    with pytest.raises(ConfigurationError, match=r'twice is a Python function.*functions = "file.py"'):
        parse(HEAD.replace('functions = "own.py"', "") + "a> {twice()}\n'''", "own.toml", "own", tmp_path)
    (tmp_path / "own.py").write_text("1 / 0")
    with pytest.raises(ServiceError, match="ZeroDivisionError"):
        parse(HEAD + "a> {twice()}\n'''", "own.toml", "own", tmp_path, allow_code=True)


@pytest.mark.slow
def test_batch_copies_the_files(tmp_path: Path) -> None:
    make(tmp_path, "a> x")
    talk = "a> {file:text.txt}\na< {word=.*}\na> {twice()}\na< {twice()}"
    (tmp_path / "own.toml").write_text(f"{HEAD}{talk}\n'''\n")
    submission = tmp_path / "one"
    submission.mkdir()
    (submission / "server.py").touch()
    (submission / "check.toml").write_text(f"run = '{' '.join(ECHO)}'\n")
    words = ["check", "batch", "--no-sandbox", "--allow-code", "--contract", "own.toml", "one"]
    done = subprocess.run(
        [*BOTHENDS_COMMAND, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    result = json.loads((tmp_path / "results" / "one.json").read_text())
    assert result["points"] == result["most"] == 4, format_failures(result) if not result else done.stdout
