"""One cause is one failure, what follows from it is SKIP with that reason; another mistake stays one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from bothends.check.case import Case, Verdict
from bothends.check.contract import Contract, load, parse
from bothends.check.same_cause import Instead, SameCause, WrongAnswer, join_scenes, join_variations
from bothends.check.scenes.exchanges import exchanges_of, text_instead
from bothends.check.scenes.server_cases import server_cases
from bothends.check.subjects.server_context import ServerContext
from tests.check.helpers import failed_cases, format_failures, judge, judge_client, write_server_script

STORE: Final = load("key-value-resp")
CASES: Final = {case.id.removeprefix("scene-"): case for case in server_cases(STORE)}
SCENES: Final = [case for case in CASES.values() if case.exchanges]
NIL: Final = b"$-1\r\n"


def at(scene: str, request: str, *before: str) -> int:
    """Return the first line of a scene that follows a request, after others."""
    return next(
        each.line
        for each in CASES[scene].exchanges
        if each.request == request and each.number == 0 and each.before >= {*before}
    )


def nil(scene: str) -> tuple[str, WrongAnswer]:
    return f"scene-{scene}", text_instead(at(scene, "GET", "SET"), NIL, [])


def joined(*wrong: tuple[str, WrongAnswer], never: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Return the failures that count, with the others. Scenes pass that did not fail, and ran."""
    failed = dict(wrong)
    passed = frozenset(case.id for case in SCENES if case.id not in failed and case.id[6:] not in never)
    return {each.case: each.others for each in join_scenes(SCENES, passed, failed)}


def test_store_that_forgets_is_one_failure_of_its_simplest_scene() -> None:
    wrong = [nil(scene) for scene in ("a-large-value", "for-all-clients", "set-and-get", "any-bytes")]
    assert joined(*wrong) == {
        "scene-set-and-get": ("scene-any-bytes", "scene-a-large-value", "scene-for-all-clients")
    }


def test_request_that_works_elsewhere_shows_another_mistake() -> None:
    """A store for each connection is one mistake, and values that are cut another one."""
    assert joined(nil("for-all-clients"), nil("any-bytes")) == {}


def test_right_reply_that_equals_the_wrong_one_shows_nothing() -> None:
    """A store that forgets is right about a key that was deleted, or never set."""
    contract = parsed(
        "ann> SET a 1\nann< OK\nann> GET a\nann< 1",
        "ann> SET b 2\nann< OK\nann> GET b\nann< 2",
        "ann> SET c 3\nann< OK\nann> GET none\nann< NONE",
    )
    cases = [case for case in server_cases(contract) if case.exchanges]
    first, second, missing = (case.id for case in cases)
    lines = [case.exchanges[-1].line for case in cases]
    wrong = {
        first: text_instead(lines[0], b"NONE\n", [b"SET a 1\n", b"GET a\n"]),
        second: text_instead(lines[1], b"NONE\n", [b"SET b 2\n", b"GET b\n"]),
    }
    [found] = join_scenes(cases, frozenset([missing]), wrong)
    assert (found.case, found.others) == (first, (second,))
    other = {name: replace(answer, text=b"?\n") for name, answer in wrong.items()}
    assert join_scenes(cases, frozenset([missing]), other) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{{"type": "hello", "nick": "chris"}}', "HELLO"),
        ('{{"nick": "chris", "type": "chat"}}', "CHAT"),
        ('{{"id": 1, "command": "get"}}', "GET"),
        ('{{"nick": "chris"}}', "NICK"),
        ("GET type", "GET"),
    ],
)
def test_kind_of_a_json_request_is_the_value_that_names_it(text: str, kind: str) -> None:
    [scene] = parsed(f"ann> {text}\nann< OK").scenes
    [exchange] = exchanges_of(scene)
    assert exchange.request == kind


def test_other_reply_to_the_same_request_is_another_mistake() -> None:
    name, answer = nil("any-bytes")
    first, never = nil("set-and-get"), ("a-large-value", "for-all-clients")
    assert joined(first, (name, replace(answer, text=b"$0\r\n\r\n")), never=never) == {}
    assert joined(first, (name, replace(answer, crash="KeyError at line 3 of a.py")), never=never) == {}
    assert joined(first, (name, answer), never=never) == {"scene-set-and-get": ("scene-any-bytes",)}


def test_reply_to_another_request_is_another_mistake() -> None:
    counting = "scene-counting", text_instead(at("counting", "INCR"), NIL, [])
    never = "a-large-value", "for-all-clients"
    assert joined(nil("set-and-get"), nil("any-bytes"), counting, never=never) == {
        "scene-set-and-get": ("scene-any-bytes",)
    }


def test_silence_in_all_scenes_is_one_failure() -> None:
    wrong = {case.id: WrongAnswer(case.exchanges[0].line, Instead.NOTHING) for case in SCENES}
    wrong[SCENES[-1].id] = WrongAnswer(SCENES[-1].exchanges[0].line, Instead.ENDED)
    [found] = join_scenes(SCENES, frozenset(), wrong)
    assert (found.case, len(found.others), found.never_right) == (SCENES[0].id, len(SCENES) - 1, True)
    assert found.describe() == "there is no reply to PING"
    assert join_scenes(SCENES, frozenset([SCENES.pop().id]), {}) == []


def test_words_of_the_peer_are_not_compared() -> None:
    first = text_instead(1, b"ERR no key fruit, 5\r\n", [b"GET fruit\r\n"])
    second = text_instead(2, b"ERR no key owner, 5\r\n", [b"GET owner\r\n"])
    assert first.text == b"ERR no key *, 5\r\n"
    assert first.is_like(second)
    assert not first.is_like(text_instead(2, b"ERR no key owner, 6\r\n", [b"GET owner\r\n"]))


def test_replies_to_texts_in_a_row_belong_to_them_in_order() -> None:
    [scene] = parsed(
        "ann> SET a\nann> GET b\nann< OK\nann< 1\nann< more\nbob< told\n(any order)\nann< x\nbob< y\n(end)"
    ).scenes
    found = [(each.request, each.number, sorted(each.before), each.clients) for each in exchanges_of(scene)]
    assert found == [
        ("SET", 0, [], 1),
        ("GET", 0, ["SET"], 1),
        ("GET", 1, ["SET"], 1),
        ("GET", 0, ["SET"], 2),
        ("GET", 2, ["SET"], 2),
    ]


def test_variations_in_pieces_are_one_failure_and_others_by_what_they_show() -> None:
    cases: list[Case[ServerContext]] = list(CASES.values())
    text, nothing = WrongAnswer(2, Instead.TEXT, b"x"), WrongAnswer(2, Instead.NOTHING)
    wrong = {
        "scene-ping-cut": text,
        "scene-ping-slow": nothing,
        "scene-ping-interleaved": nothing,
        "scene-ping-gone": nothing,
        "scene-set-and-get-bytewise": nothing,
        "scene-set-and-get-gone": text,
        "scene-counting-gone": nothing,
    }
    assert join_variations(cases, wrong) == [
        SameCause("scene-ping-cut", ("scene-ping-slow", "scene-set-and-get-bytewise")),
        SameCause("scene-ping-gone", ("scene-counting-gone",)),
    ]


def parsed(*talks: str, transport: str = "tcp") -> Contract:
    text = f'transport = "{transport}"\nframing = "lines"\n'
    for number, talk in enumerate(talks):
        text += f"[[scene]]\nname = 'scene {number}'\nrepeat = 'beside'\ntalk = '''\n{talk}\n'''\n"
    return parse(text, "own.toml", "own", Path())


SERVER: Final = """
import socketserver, sys
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        {greeting}
        for line in self.rfile:
            word = line.decode().split()[0]
            {reply}
    def send(self, text):
        self.wfile.write(text.encode() + b"\\n")
socketserver.TCPServer.allow_reuse_address = True
socketserver.{kind}TCPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
RIGHT: Final = 'self.send({"ADD": "3", "SUB": "1"}.get(word, "ERROR"))'
TALKS: Final = (
    "ann> ADD 1 2\nann< 3",
    "ann> SUB 2 1\nann< 1",
    "ann> MUL\nann< ERROR",
    "ann> ADD\nbob> SUB\nbob< 1\nann< 3",
)
ONE_AT_A_TIME: Final = (
    "serves one client at a time: it has not accepted a connection, which waits in its queue"
)


@pytest.mark.spread("greeting", "reply", "kind", "skipped", "cause", one_in=2)
@pytest.mark.parametrize(
    ("greeting", "reply", "kind", "skipped", "cause"),
    [
        ("self.send('hello')", RIGHT, "Threading", 3,
         'sends "hello\\n" (6 bytes) before it has received anything: the contract has no greeting'),
        ("pass", "self.send('?')", "Threading", 3, "sends the same wrong text in every scene"),
        ("pass", "pass", "Threading", 3, "there is no reply to ADD, and no line of another scene is right"),
        ("pass", RIGHT, "", 5, ONE_AT_A_TIME),
    ],
    ids=["greets", "one-reply", "silent", "one-client"],
)  # fmt: skip
def test_one_cause_is_one_failure(
    greeting: str, reply: str, kind: str, skipped: int, cause: str, tmp_path: Path
) -> None:
    command = write_server_script(tmp_path, SERVER.format(greeting=greeting, reply=reply, kind=kind))
    only = [f"scene-scene-{number}{each}" for number in range(4) for each in ("", "-interleaved")]
    result = judge(command, parsed(*TALKS), *only, timeout=0.5)
    [failure] = [each for each in result.outcomes if each.verdict is Verdict.FAIL]
    assert failure.likely_cause == cause, format_failures(result)
    details = [
        each.detail for each in result.outcomes if each.detail.endswith(f"here, too: see {failure.case}")
    ]
    details += [
        each.detail
        for each in result.outcomes
        if each.detail.endswith(f"is the cause here, too: see {failure.case}")
    ]
    assert len(set(details)) == 1
    assert result.max_points == 8


def test_wrong_request_is_one_failure_beside_another_mistake(tmp_path: Path) -> None:
    reply = 'self.send({"ADD": "4", "SUB": "1"}.get(word, "NO"))'
    command = write_server_script(tmp_path, SERVER.format(greeting="pass", reply=reply, kind="Threading"))
    talks = (*TALKS, "ann> SUB 2 1\nann< 1\nann> ADD 1 2\nann< 3")
    only = [f"scene-scene-{number}" for number in range(5)]
    result = judge(command, parsed(*talks), *only)
    assert failed_cases(result) == {"scene-scene-0", "scene-scene-2"}, format_failures(result)
    by_id = {each.case: each for each in result.outcomes}
    assert by_id["scene-scene-0"].likely_cause == "the reply to ADD is wrong, as in 2 other scenes"
    assert (
        by_id["scene-scene-4"].detail
        == "not asked again: the reply to ADD is wrong here, too: see scene-scene-0"
    )
    assert (result.points, result.max_points) == (1, 5)


def test_client_that_is_silent_in_all_scenes_is_one_failure(tmp_path: Path) -> None:
    text = "import socket, sys\nsocket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
    command = write_server_script(tmp_path, text)
    result = judge_client(command, parsed(*TALKS[:2]), "scene-scene-0", "scene-scene-1")
    assert failed_cases(result) == {"scene-scene-0"}, format_failures(result)
    assert result.outcomes[-1].detail.startswith(
        "not asked again: no line is right here, too: see scene-scene-0"
    )
