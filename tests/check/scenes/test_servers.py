"""Scenes played against servers: right ones pass, and each wrong one fails at the line that shows it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import Contract, parse
from bothends.check.results import CaseOutcome, SuiteResult
from tests.check.helpers import failed_cases, format_failures, judge

PROGRAMS = Path(__file__).parent / "programs"

CHAT = r"""
transport = "tcp"
framing = "lines"

[[scene]]
name = "to the others"
repeat = "after"
talk = '''
alice> JOIN alice
alice< WELCOME {name=\w+}
bob> JOIN bob
bob< WELCOME bob
carol> JOIN carol
carol< WELCOME carol
alice> hello
alice> again
(any order)
bob< {name}: again
bob< {name}: hello
carol< alice: hello
carol< alice: again
(end)
alice< (nothing for 0.1 s)
'''

[[scene]]
name = "names"
talk = '''
alice> JOIN alice
alice< WELCOME alice
alice/2> JOIN alice
alice/2< TAKEN
alice/2| NAME TAKEN
alice> QUIT
alice< BYE
alice< (closes)
alice/2> JOIN alice
alice/2< (within 2 s) WELCOME alice
'''
"""

KEY_VALUE = r"""
transport = "tcp"
framing = "length"
length_bytes = 2
length_order = "little"

[[scene]]
name = "store"
repeat = "beside"
talk = '''
ann> Sa\0one
ann< K{id=....}
ann> Sb\0two
ann< hex: 4b {second=....}
ann> Ga
ann< Vone
ann> I{id}
ann< Vone
ben> Gb
ben< Vtwo
ben> Sb\0three
ben< K{=....}
ben> I{second}
ben< Vthree
ben> (half-closes)
ben< (closes)
ben> (connects)
ben> Gc
ben< N
'''
"""


def contract(text: str) -> Contract:
    return parse(text, "own.toml", "own", Path())


def command(program: str, mistake: str = "") -> list[str]:
    return [sys.executable, "-u", str(PROGRAMS / program), "{port}", *([mistake] if mistake else [])]


def outcome(result: SuiteResult, case: str) -> CaseOutcome:
    [found] = [each for each in result.outcomes if each.case == case]
    return found


def test_right_chat_server_passes_all() -> None:
    result = judge(command("chat.py"), contract(CHAT))
    assert not failed_cases(result), format_failures(result)
    assert {each.case: each.verdict.value for each in result.outcomes} == {
        "scene-starts": "INFO",
        "scene-to-the-others": "PASS",
        "scene-to-the-others-bytewise": "PASS",
        "scene-to-the-others-cut": "PASS",
        "scene-to-the-others-joined": "PASS",
        "scene-to-the-others-interleaved": "SKIP",
        "scene-to-the-others-slow": "SKIP",
        "scene-to-the-others-deaf": "SKIP",
        "scene-to-the-others-crowd": "SKIP",
        "scene-to-the-others-gone": "PASS",
        "scene-to-the-others-stopped": "PASS",
        "scene-names": "PASS",
        "scene-names-bytewise": "PASS",
        "scene-names-cut": "PASS",
        "scene-names-joined": "SKIP",
        "scene-names-interleaved": "SKIP",
        "scene-names-slow": "SKIP",
        "scene-names-deaf": "SKIP",
        "scene-names-crowd": "SKIP",
        "scene-names-gone": "SKIP",
        "scene-names-stopped": "PASS",
    }
    assert outcome(result, "scene-names-joined").detail == "no client sends two texts in a row on a stream"
    assert result.max_points == 9  # SIGTERM counts once


def test_right_key_value_server_passes_all() -> None:
    result = judge(command("key_value.py"), contract(KEY_VALUE))
    assert not failed_cases(result), format_failures(result)
    skipped = {each.case for each in result.outcomes if each.verdict is Verdict.SKIP}
    assert skipped == {"scene-store-joined"}


@pytest.mark.spread("mistake", "case", "expected", "happened", one_in=10)
@pytest.mark.parametrize(
    ("mistake", "case", "expected", "happened"),
    [
        ("to-sender-only", "to-the-others", "line 10: bob< {name}: again or line 11: bob< {name}: hello",
         "bob received nothing within 0.5 s; alice received it instead (the server is waiting, too)"),
        ("to-all", "to-the-others", "line 15: alice< (nothing for 0.1 s)", "alice received"),
        ("to-first", "to-the-others", "line 12: carol< alice: hello or line 13: carol< alice: again",
         "carol received nothing"),
        ("twice", "to-the-others", "line 10: bob< {name}: again", 'bob received "alice: hello" (12 bytes)'),
        ("no-newline", "to-the-others", r"line 2: alice< WELCOME {name=\w+}",
         'alice received only "WELCOME alice" (13 bytes), without the end of the message, within'),
        ("no-names", "names", "line 4: alice/2< TAKEN", 'alice/2 received "WELCOME alice" (13 bytes)'),
        ("keeps-names", "names", "line 10: alice/2< (within 2 s) WELCOME alice", 'alice/2 received "TAKEN"'),
        ("stays-open", "names", "line 8: alice< (closes)", "the connection was still open after"),
        ("resets", "names", "line 8: alice< (closes)", "recv() failed: ECONNRESET"),
        ("no-buffer", "to-the-others-bytewise", "line 2", "alice received nothing"),
        ("first-line-only", "to-the-others-joined", "line 10", "bob received nothing"),
        ("dies-of-reset", "to-the-others-gone", "line ", "the server exited"),
    ],
)  # fmt: skip
def test_wrong_chat_server_fails_at_the_line(mistake: str, case: str, expected: str, happened: str) -> None:
    result = judge(command("chat.py", mistake), contract(CHAT), f"scene-{case}", timeout=0.5)
    found = outcome(result, f"scene-{case}")
    if found.verdict is Verdict.SKIP and mistake == "first-line-only":
        found = outcome(result, "scene-to-the-others")  # where two texts may come together, too
    assert found.verdict is Verdict.FAIL, format_failures(result)
    assert found.expected.startswith(expected)
    assert happened in re.sub(r"within [\d.]+ s", "within 0.5 s", found.happened)
    assert {entry.actor for entry in found.transcript} & {"alice", "alice (gone)"}


@pytest.mark.spread("mistake", "expected", "happened", one_in=10)
@pytest.mark.parametrize(
    ("mistake", "expected", "happened"),
    [
        ("never-stores", "line 6: ann< Vone", 'ann received "N" (1 byte)'),
        ("first-key-only", "line 6: ann< Vone", 'ann received "Vtwo" (4 bytes)'),
        ("forgets", "line 10: ben< Vtwo", 'ben received "N" (1 byte)'),
        ("keeps-the-first-value", "line 14: ben< Vthree", 'ben received "Vtwo" (4 bytes)'),
        ("forgets-identifiers", "line 8: ann< Vone", 'ann received "N" (1 byte)'),
        ("same-identifier", "line 8: ann< Vone", 'ann received "Vtwo" (4 bytes)'),
        ("network-order", "line 2: ann< K{id=....}", r'ann received only "\x00\x05K'),
    ],
)
def test_wrong_key_value_server_fails_at_the_line(mistake: str, expected: str, happened: str) -> None:
    result = judge(command("key_value.py", mistake), contract(KEY_VALUE), "scene-store", timeout=0.5)
    found = outcome(result, "scene-store")
    assert (found.verdict, found.expected) == (Verdict.FAIL, expected), format_failures(result)
    assert happened in found.happened
