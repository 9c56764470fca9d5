"""Scenes played from the server's side, with clients."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import parse
from tests.check.helpers import format_failures, judge_client
from tests.check.scenes.test_servers import PROGRAMS, outcome

LOGIN = r"""
transport = "tcp"
framing = "lines"

[[scene]]
name = "log in"
input = '''
SET a 1
GET a
'''
examples = { token = "t-4711" }
talk = '''
ann> HELLO
ann< TOKEN {token=t-\d{4}}
ann> {token} SET a 1
ann< OK {=\d+}
ann| DONE
ann> {token} GET a
ann< 1
ann> (closes)
'''

[[scene]]
name = "two"
talk = '''
ann> HELLO
ann< TOKEN 1
ben> HELLO
ben< TOKEN 2
'''

[[scene]]
name = "odd"
input = ""
talk = '''
ann> HELLO
ann< TOKEN {odd=x{100}}
'''
"""
ECHO = """
import socket, sys
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.settimeout(5)
for line in sys.stdin:
    sock.sendto(line.rstrip("\\n").encode() or b"x", ("127.0.0.1", int(sys.argv[1])))
    print(sock.recv(100).decode())
"""


def command(mistake: str = "") -> list[str]:
    return [sys.executable, str(PROGRAMS / "key_value_client.py"), "{port}", *([mistake] if mistake else [])]


def test_right_client_passes() -> None:
    result = judge_client(command(), parse(LOGIN, "own.toml", "own", Path()))
    assert {each.case: each.verdict.value for each in result.outcomes} == {
        "scene-client-starts": "INFO",
        "scene-log-in": "PASS",
        "scene-log-in-bytewise": "PASS",
        "scene-log-in-cut": "PASS",
        "scene-log-in-joined": "SKIP",
        "scene-two": "SKIP",
        "scene-odd": "SKIP",
    }, format_failures(result)
    assert "several clients" in outcome(result, "scene-two").detail
    assert "line 2: ann< TOKEN {odd=x{100}}: write examples = { odd" in outcome(result, "scene-odd").detail


@pytest.mark.spread("mistake", "expected", "happened", one_in=8)
@pytest.mark.parametrize(
    ("mistake", "expected", "happened"),
    [
        ("wrong-token", "line 3: ann> {token} SET a 1", 'the client sent "t-471 SET a 1"'),
        ("shows-nothing", '"TOKEN t-4711" (12 bytes) on standard output', "it printed nothing"),
        ("stays", "line 8: ann> (closes)", "the client left the connection open"),
        ("fails", "the client to exit with status 0", "status 3"),
    ],
)
def test_wrong_client_fails_at_the_line(mistake: str, expected: str, happened: str) -> None:
    result = judge_client(command(mistake), parse(LOGIN, "own.toml", "own", Path()), "scene-log-in")
    found = outcome(result, "scene-log-in")
    assert (found.verdict, found.expected) == (Verdict.FAIL, expected), format_failures(result)
    assert happened in found.happened


def test_datagram_client(tmp_path: Path) -> None:
    text = """
transport = "udp"
[client]
several = true
[[scene]]
name = "echo"
talk = '''
ann> one
ann< ONE
ann> two
ann< {=[A-Z]+}
'''
[[scene]]
name = "wrong"
input = "one"
talk = '''
ann> uno
ann< UNO
'''
"""
    (tmp_path / "client.py").write_text(ECHO)
    command = [sys.executable, str(tmp_path / "client.py"), "{port}"]
    result = judge_client(command, parse(text, "own.toml", "own", Path()))
    assert outcome(result, "scene-echo").verdict is Verdict.PASS, format_failures(result)
    wrong = outcome(result, "scene-wrong")
    assert (wrong.expected, wrong.happened) == ("line 1: ann> uno", 'the client sent "one" (3 bytes)')
