"""Scenes with other transports and framings, and with servers whose state or port stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.sockets.free_port import free_port
from tests.check.helpers import failed_cases, format_failures, judge
from tests.check.scenes.test_servers import CHAT, PROGRAMS, command, contract, outcome

COUNTER = r"""
transport = "tcp"

[[scene]]
name = "sum"
clients = { sensor = "udp" }
talk = '''
viewer> SUM?
viewer< sum=0;
sensor> 20
sensor< OK
sensor/2> 22
sensor/2< OK
viewer> SUM?
viewer< sum={sum=\d+};
viewer> SUM?
viewer< sum={sum}
viewer< ;
viewer> END?
viewer< (within 2 s) (closes)
'''
"""

FIXED = r"""
transport = "tcp"
framing = "fixed"
message_bytes = 8

[[scene]]
name = "echo"
repeat = "beside"
talk = '''
ann> hello
ann< hello
ann> hex: 01 02
ann> 12345678
ann< hex: 01 02
ann< {=[0-9]+}
ann> (half-closes)
ann< (closes)
'''
"""


@pytest.mark.spread("mistake", one_in=2)
@pytest.mark.parametrize("mistake", ["", "other-port"])
def test_datagrams_beside_a_stream_without_framing(mistake: str) -> None:
    result = judge(command("counter.py", mistake), contract(COUNTER))
    assert outcome(result, "scene-sum").verdict is Verdict.PASS, format_failures(result)
    assert "no framing" in outcome(result, "scene-sum-cut").detail


@pytest.mark.spread("mistake", "expected", "happened", one_in=3)
@pytest.mark.parametrize(
    ("mistake", "expected", "happened"),
    [
        ("no-udp", "line 3: sensor> 20", "it has no udp socket"),
        ("empty", "line 4: sensor< OK", "sensor received nothing (0 bytes)"),
        ("wrong-end", "line 2: viewer< sum=0;", 'viewer received "sum=0!" (6 bytes)'),
    ],
)
def test_wrong_counter_fails_at_the_line(mistake: str, expected: str, happened: str) -> None:
    result = judge(command("counter.py", mistake), contract(COUNTER), "scene-sum", timeout=0.5)
    found = outcome(result, "scene-sum")
    assert (found.verdict, found.expected) == (Verdict.FAIL, expected), format_failures(result)
    assert happened.removesuffix(" (0 bytes)") in found.happened


@pytest.mark.slow
def test_messages_of_a_fixed_size(tmp_path: Path) -> None:
    echo = [sys.executable, "-m", "bothends", "serve", "echo", "tcp://127.0.0.1:{port}"]
    result = judge(echo, contract(FIXED))
    assert not failed_cases(result), format_failures(result)
    assert {each.verdict.value for each in result.outcomes[1:]} == {"PASS"}
    upper = [*echo[:4], "upper", echo[-1]]
    found = outcome(judge(upper, contract(FIXED), "scene-echo", timeout=0.5), "scene-echo")
    assert found.expected == "line 2: ann< hello"


def test_server_with_a_fixed_port_is_started_again_for_each_scene() -> None:
    fixed = [str(free_port()) if word == "{port}" else word for word in command("chat.py", "keeps-names")]
    text = CHAT.replace('repeat = "after"\n', "")
    result = judge(fixed, contract(text), "scene-to-the-others-cut", timeout=1.0)
    assert outcome(result, "scene-to-the-others").verdict is Verdict.PASS, format_failures(result)
    assert outcome(result, "scene-to-the-others-cut").verdict is Verdict.PASS, format_failures(result)


@pytest.mark.slow
def test_running_server() -> None:
    port = free_port()
    endpoint = f"tcp://127.0.0.1:{port}"
    absent = judge([], contract(CHAT), endpoint=endpoint)
    assert failed_cases(absent) == {"scene-starts"}
    server = subprocess.Popen(
        [sys.executable, "-u", str(PROGRAMS / "chat.py"), str(port)], stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"listening\n"
        result = judge([], contract(CHAT), endpoint=endpoint)
    finally:
        server.kill()
        server.communicate()
    assert not failed_cases(result), format_failures(result)
    assert outcome(result, "scene-to-the-others-gone").verdict is Verdict.PASS
