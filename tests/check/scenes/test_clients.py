"""Scenes played from the server's side, with clients."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import parse
from bothends.check.results import CaseOutcome
from tests.check.helpers import format_failures, judge, judge_client
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


OPTIONAL = r"""
transport = "TRANSPORT"
framing = "lines"
[[scene]]
name = "pings"
role = "client"
input = ""
output = "20 ms\nbye"
talk = '''
(optional)
ann> HELP
ann< ask me
(end)
(optional)
ann> VERSION {=\d}
ann< 3
(end)
ann> (eventually) PING 7 {time=\d+\.\d+}
ann< PONG {time}
(optional)
ann> QUIT
(end)
ann> (closes)
'''
"""
TALKER = """
import socket, sys
sock = socket.socket(type=KIND)
sock.settimeout(1)
sock.connect(("127.0.0.1", int(sys.argv[1])))
for line in SAYS:
    sock.send(line.encode() + b"\\n")
    if line == "QUIT":
        break
    reply = sock.recv(100).decode().strip()
    assert not line.startswith("PING") or reply == line.replace("PING 7", "PONG"), reply
print("20 ms")
print("bye")
"""


def play_pings(folder: Path, transport: str, says: list[str], program: str = TALKER) -> CaseOutcome:
    kind = "socket.SOCK_STREAM" if transport == "tcp" else "socket.SOCK_DGRAM"
    (folder / "client.py").write_text(program.replace("KIND", kind).replace("SAYS", repr(says)))
    text = OPTIONAL.replace("TRANSPORT", transport)
    if transport == "udp":
        ending = "(optional)\nann> QUIT\n(end)\nann> (closes)\n"
        text = text.replace(ending, "").replace('framing = "lines"\n', "")
    command = [sys.executable, str(folder / "client.py"), "{port}"]
    result = judge_client(command, parse(text, "own.toml", "own", Path()), "scene-pings")
    return outcome(result, "scene-pings")


@pytest.mark.spread("transport", "says", "happened", one_in=4)
@pytest.mark.parametrize(
    ("transport", "says", "happened"),
    [
        ("tcp", ["PING 7 1.5"], ""),
        ("udp", ["PING 7 1.5"], ""),
        ("tcp", ["HELP", "VERSION 3", "PING 7 1.5", "QUIT"], ""),
        ("udp", ["HELP", "VERSION 3", "PING 7 1.5"], ""),
        ("tcp", ["VERSION 3", "PING 7 1.5"], ""),
        ("tcp", ["PING 7 now"], 'the client closed the connection; the client sent only "PING 7 now'),
        ("udp", ["PING 7 now"], 'the client sent only "PING 7 now'),
        ("tcp", ["PING 7 1.5", "LEAVE"], 'the client sent "LEAVE'),
    ],
)
def test_client_may_leave_out_what_is_optional(
    transport: str, says: list[str], happened: str, tmp_path: Path
) -> None:
    found = play_pings(tmp_path, transport, says)
    assert found.verdict is (Verdict.FAIL if happened else Verdict.PASS), found
    assert happened in found.happened


def test_output_of_a_client_is_compared(tmp_path: Path) -> None:
    found = play_pings(tmp_path, "tcp", ["PING 7 1.5"], TALKER.replace("20 ms", "2 s"))
    assert (found.verdict, found.expected) == (Verdict.FAIL, '"20 ms" (5 bytes) on standard output')


def test_server_is_not_asked_what_is_optional() -> None:
    talk = "(optional)\nann> HELP\nann< ask me\n(end)\nann> one\nann< one"
    text = f'transport="tcp"\nframing="lines"\n[[scene]]\nname="echo"\ntalk="""\n{talk}"""'
    command = [sys.executable, "-m", "bothends", "serve", "echo", "tcp://127.0.0.1:{port}"]
    result = judge(command, parse(text, "own.toml", "own", Path()), "scene-echo")
    assert outcome(result, "scene-echo").verdict is Verdict.PASS, format_failures(result)
