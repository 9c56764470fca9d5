"""Patterns that backtrack for ever: the contract is refused, or the case ends in time, with its reason."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path

import pytest

from bothends.check import patterns
from bothends.check.case import Verdict
from bothends.check.contract import parse
from bothends.check.patterns import PatternTooSlow, match_start, match_whole
from tests.check.helpers import BOTHENDS_COMMAND, judge, write_server_script

SLOW = [
    r"(a+)+b",
    r"(?:\w+\s?)*\n",
    r"(?:a|a)*!",
    r"(?:[0-9]+,?)+;",
    r"([^\r]*\r?\n?)*x",
]
ANSWER = "transport = 'tcp'\nframing = 'lines'\n[answer]\nmatches = '''{}'''\n"
SCENE = "transport = 'tcp'\nframing = 'lines'\n[[scene]]\nname = 's'\ntalk = '''\na> x\na< {{v={}}}\n'''\n"
# Fast on the texts that are tried when it is read, because those have no q.
HIDDEN = r"(?:q|Q|qq|QQ)*\n"
SERVER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    conn.recv(100)
    conn.sendall(b"q" * 100 + b"!\\n")
    conn.close()
"""


@pytest.mark.spread("form", "pattern", one_in=3)
@pytest.mark.parametrize("form", [ANSWER, SCENE], ids=["answer", "scene"])
@pytest.mark.parametrize("pattern", SLOW)
def test_slow_pattern_is_refused(form: str, pattern: str, tmp_path: Path) -> None:
    name = tmp_path / "own.toml"
    name.write_text(form.format(pattern.replace("(?:", "(").replace("(", "(?:")))
    words = [*BOTHENDS_COMMAND, "check", "server", "--contract", "own.toml", "--", "true"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "takes too long on a text of 20" in done.stderr
    assert "without a repetition inside a repetition" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("pattern", SLOW[:2])
def test_match_ends_in_time(pattern: str) -> None:
    with pytest.raises(PatternTooSlow):
        match_whole(re.compile(pattern.encode()), b"a" * 60)
    assert match_start(re.compile(rb"[a-z]*"), b"abc1") is not None  # the next match has its own limit


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?:[^\r\n]+\r\n)*\r\n", r"HTTP/1\.[01] 200 [^\r\n]*\r\n.*\r\n\r\nhello",
        r"(?:250-[^\r\n]*\r\n)*250 .*",
        r"\d+(?:\.\d+)*", r"(?:\w+ )*\w+", r".*,.*,.*", r"[1-6]\n", r"(?:\x03www\x04test\x00|\xc0\x0c)",
    ],
)  # fmt: skip
def test_usual_patterns_are_taken(pattern: str) -> None:
    patterns.check_speed(re.compile(pattern.encode(), re.DOTALL))


def test_match_in_another_thread_has_no_limit_but_works() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(match_whole(re.compile(b"a+"), b"aa")))
    thread.start()
    thread.join()
    assert found[0] is not None


@pytest.mark.parametrize("form", [ANSWER, SCENE], ids=["answer", "scene"])
def test_case_ends_and_costs_its_points(form: str, tmp_path: Path) -> None:
    text = form.format(HIDDEN if form is ANSWER else HIDDEN.removesuffix(r"\n") + "z")
    contract = parse(text, "own.toml", "own", tmp_path)
    result = judge(write_server_script(tmp_path, SERVER), contract, "tcp-one-message" if form is ANSWER else
                   "scene-s")  # fmt: skip
    found = result.outcomes[-1]
    assert found.verdict is Verdict.SKIP, found
    assert found.detail.startswith("not asked, because the pattern")
    assert (result.points, result.max_points) == (0, 1)
