"""Variations of scenes: slow and deaf clients, a crowd, SIGTERM, a restart, and datagrams on a bad path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import Contract, parse
from bothends.check.scenes.datagram_path import reorder_sends
from bothends.check.scenes.talk import parse_talk
from bothends.errors import ConfigurationError
from tests.check.helpers import failed_cases, format_failures, judge, judge_client, write_server_script
from tests.check.scenes.test_clients import LOGIN
from tests.check.scenes.test_clients import command as client_command
from tests.check.scenes.test_servers import PROGRAMS, outcome

NOTES = r"""
transport = "tcp"
framing = "lines"

[[scene]]
name = "page"
repeat = "beside"
talk = '''
ann> HELLO ann
ann< HI ann
ann> PAGE
ann< PAGE
'''

[[scene]]
name = "kept"
talk = '''
ann> NOTE milk
ann< OK
(the server restarts)
ann> NOTE eggs
ann< OK
ben> LIST
ben< milk, eggs
'''
""".replace("ann< PAGE", f"ann< {'x' * 1000}")
COUNT = r"""
transport = "udp"
[[scene]]
name = "count"
repeat = "after"
bears = ["loss", "duplicates", "delay"]
talk = '''
ann> ADD 2 a
ann< 2
ann> ADD 3 b
ann< 5
ann> ADD 4 c
ann< 9
'''
"""


def contract(text: str) -> Contract:
    return parse(text, "own.toml", "own", Path())


def command(mistake: str = "") -> list[str]:
    words = [sys.executable, "-u", str(PROGRAMS / "notes.py"), "{port}", "{dir}"]
    return [*words, *([mistake] if mistake else [])]


@pytest.mark.slow
def test_right_servers_pass_all() -> None:
    result = judge(command(), contract(NOTES))
    assert not failed_cases(result), format_failures(result)
    assert {each.case for each in result.outcomes if each.verdict is Verdict.PASS} == {
        *(f"scene-page{each}" for each in ("", "-bytewise", "-cut", "-interleaved", "-slow", "-deaf")),
        *(f"scene-page{each}" for each in ("-crowd", "-gone", "-stopped")),
        *(f"scene-kept{each}" for each in ("", "-bytewise", "-cut")),
    }
    assert outcome(result, "scene-kept-stopped").detail == "it starts the server again"
    counting = judge(command(), contract(COUNT))
    assert not failed_cases(counting), format_failures(counting)
    passed = {each.case for each in counting.outcomes if each.verdict is Verdict.PASS}
    assert passed >= {"scene-count-loss", "scene-count-duplicates", "scene-count-delay"}


@pytest.mark.spread("mistake", "case", "happened", one_in=3)
@pytest.mark.parametrize(
    ("mistake", "case", "happened"),
    [
        ("blocking-read", "page-slow", "ann received nothing within"),
        ("blocking-send", "page-deaf", "ann received nothing within"),
        ("thirty-clients", "page-crowd", "the server closed the connection"),
        ("ignores-sigterm", "page-stopped", "it is still running"),
        ("forgets", "kept", 'ben received "eggs"'),
    ],
)
def test_mistake_fails_its_variation(mistake: str, case: str, happened: str) -> None:
    result = judge(command(mistake), contract(NOTES), f"scene-{case}", timeout=0.5)
    found = outcome(result, f"scene-{case}")
    assert found.verdict is Verdict.FAIL, format_failures(result)
    assert happened in found.happened


@pytest.mark.spread("case", "happened", one_in=3)
@pytest.mark.parametrize(
    ("case", "happened"),
    [
        ("loss", 'ann received "4" (1 byte)'),
        ("duplicates", 'ann received "4" (1 byte)'),
        ("delay", 'ann received "11" (2 bytes)'),
    ],
)
def test_datagram_that_counts_twice_is_found(case: str, happened: str) -> None:
    result = judge(command("counts-twice"), contract(COUNT), f"scene-count-{case}", timeout=0.5)
    found = outcome(result, f"scene-count-{case}")
    assert found.verdict is Verdict.FAIL, format_failures(result)
    assert happened in found.happened


def test_variations_that_make_no_sense_say_why() -> None:
    text = COUNT.replace('"delay"', '"reordering"')
    result = judge(
        command(), contract(text), "scene-count-reordering", "scene-count-delay", "scene-count-slow"
    )
    assert outcome(result, "scene-count-reordering").detail == "no client sends two datagrams in a row"
    assert 'bears = ["delay"]' in outcome(result, "scene-count-delay").detail
    assert 'repeat = "beside"' in outcome(result, "scene-count-slow").detail


def test_stream_bears_nothing() -> None:
    with pytest.raises(ConfigurationError, match="none of its clients uses datagrams"):
        contract(NOTES.replace('repeat = "beside"', 'bears = ["loss"]'))


def test_reordering_reverses_what_is_sent_in_a_row() -> None:
    talk = "a> 1\na> 2\na> 3\na< one\na< two\na< three\na> 4\na< four"
    changed = reorder_sends(parse_talk(talk, lambda _: True), lambda _: True)
    assert [type(step).__name__ for step in changed] == [
        *("SendTexts", "ExpectText", "ExpectNothing", "SendTexts", "ExpectText"),
    ]
    [sent, expected, *_] = changed
    assert [text.render({}) for text in sent.texts] == [b"3", b"2", b"1", b"1", b"2", b"3"]  # type: ignore[attr-defined]
    assert expected.eventually  # type: ignore[attr-defined]
    assert expected.choices[0].render({}) == b"three"  # type: ignore[attr-defined]
    assert reorder_sends(changed[3:], lambda _: True) == changed[3:]


def test_restart_ends_connections_and_is_a_line_of_its_own() -> None:
    with pytest.raises(ConfigurationError, match="inside \\(any order\\)"):
        contract(NOTES.replace("(the server restarts)", "(any order)\n(the server restarts)"))
    [_, scene] = contract(NOTES).scenes
    assert scene.restarts
    assert scene.clients == ("ann", "ben")


def test_client_that_takes_one_recv_for_a_line_fails_bytewise() -> None:
    agreed = parse(LOGIN, "own.toml", "own", Path())
    result = judge_client(client_command("one-recv"), agreed, "scene-log-in", "scene-log-in-bytewise")
    assert outcome(result, "scene-log-in").verdict is Verdict.PASS, format_failures(result)
    assert outcome(result, "scene-log-in-bytewise").verdict is Verdict.FAIL


# Serves one client at a time, takes long between two lines, and handles no error.
SLOW_ONE = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as stream:
        for line in stream:
            connection.sendall(b"BYE\\n" if line == b"QUIT\\n" else b"OK\\n")
            if line == b"QUIT\\n":
                break
            until = time.process_time() + 0.1
            while time.process_time() < until:
                pass
"""
QUIT = r"""
transport = "tcp"
framing = "lines"
[[scene]]
name = "quit"
repeat = "after"
talk = '''
ann> NOOP
ann< OK
ann> QUIT
ann< BYE
ann< (closes)
'''
"""


def test_lost_client_is_reset_after_the_server_has_read_what_it_sent(tmp_path: Path) -> None:
    command = write_server_script(tmp_path, SLOW_ONE)
    result = judge(command, contract(QUIT), "scene-quit-gone")
    assert outcome(result, "scene-quit-gone").verdict is Verdict.PASS, format_failures(result)
