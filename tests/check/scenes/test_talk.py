"""The talk of a scene: its lines, texts and events, and the errors for invalid ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.contract import Contract, parse
from bothends.check.scenes.spec import Scene, slug
from bothends.check.scenes.steps import (
    Connect,
    EndConnection,
    Ending,
    ExpectEnding,
    ExpectInAnyOrder,
    ExpectNothing,
    ExpectText,
    Optional,
    Pause,
    SendTexts,
)
from bothends.check.scenes.talk import parse_talk
from bothends.check.scenes.template import CapturedText, RecalledText, parse_text
from bothends.errors import ConfigurationError

HEAD = 'transport = "tcp"\nframing = "lines"\n'


def read_contract(talk: str, head: str = HEAD, table: str = "") -> Contract:
    text = f"{head}[[scene]]\nname = 'one'\ntalk = '''\n{talk}'''\n{table}"
    return parse(text, "own.toml", "own", Path())


def read_scene(talk: str, head: str = HEAD, table: str = "") -> Scene:
    [scene] = read_contract(talk, head, table).scenes
    return scene


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hello", (b"hello",)),
        ("", (b"",)),
        (r"a\n\r\t\0\\\(\{\x00\xff\u20ac", (b"a\n\r\t\0\\({\x00\xff\xe2\x82\xac",)),
        ("hex: 00 ff0A", (b"\x00\xff\n",)),
        ("hex:", (b"",)),
        (
            r"hex: 01 {id=..} 02 {id2=[\x00-\x7f]}",
            (b"\1", CapturedText("id", b".."), b"\2", CapturedText("id2", rb"[\x00-\x7f]")),
        ),
        (r"WELCOME {name=\w+}!", (b"WELCOME ", CapturedText("name", rb"\w+"), b"!")),
        ("{a}{b} c", (RecalledText("a"), RecalledText("b"), b" c")),
        (r"{=\d{2,4}}", (CapturedText("", rb"\d{2,4}"),)),
        (r"{x=[^\}]+}}", (CapturedText("x", rb"[^\}]+"), b"}")),
        ('{"op": "get", "n": {}}'.replace("{}}", "{1}}"), (b'{"op": "get", "n": {1}}',)),
        ("caf\u00e9 | tea # no comment", ("caf\u00e9 | tea # no comment".encode(),)),
    ],
)
def test_text(text: str, parts: tuple[object, ...]) -> None:
    assert parse_text(text).parts == parts


def test_every_kind_of_line() -> None:
    scene = read_scene(
        r"""
# a comment
alice> (connects)
alice> JOIN alice
alice< WELCOME {name=\w+}
alice| HELLO {name2=\w+}
alice< (within 500 ms) READY

bob/2> (waits 0.1 s)
(any order)
alice< one
bob/2< (within 2 s) two
bob/2| zwei
(end)
alice< (nothing for 0.3 s)
bob/2< (anything for 1 s)
alice> (half-closes)
alice< BYE {name}
alice< (within 1 s) (closes)
bob/2< (half-closes)
bob/2> last
bob/2> (reset)
"""
    )
    kinds = [type(step) for step in scene.steps]
    assert kinds == [
        Connect, SendTexts, ExpectText, ExpectText, Pause, ExpectInAnyOrder, ExpectNothing, ExpectNothing,
        EndConnection, ExpectText, ExpectEnding, ExpectEnding, SendTexts, EndConnection,
    ]  # fmt: skip
    assert [step.line for step in scene.steps] == [3, 4, 5, 7, 9, 10, 15, 16, 17, 18, 19, 20, 21, 22]
    assert scene.clients == ("alice", "bob/2")
    greeting, ready, block = scene.steps[2], scene.steps[3], scene.steps[5]
    assert isinstance(greeting, ExpectText)
    assert len(greeting.choices) == 2
    assert isinstance(ready, ExpectText)
    assert ready.within == 0.5
    assert isinstance(block, ExpectInAnyOrder)
    assert [(each.client, len(each.choices), each.within) for each in block.expected] == [
        ("alice", 1, None),
        ("bob/2", 2, 2.0),
    ]
    last = scene.steps[-1]
    assert isinstance(last, EndConnection)
    assert (last.ending, str(last)) == (Ending.RESET, "line 22: bob/2> (reset)")


def test_optional_lines_are_for_clients_only() -> None:
    talk = "(optional)\na> HELP\na< {text=.+}\na< {text2=.+}\n(end)\na> {n=\\d+}\na< {n}\n"
    scene = read_scene(talk, table="role = 'client'")
    assert [type(step) for step in scene.steps] == [SendTexts, ExpectText]
    [optional, *rest] = scene.all_steps
    assert isinstance(optional, Optional)
    assert tuple(rest) == scene.steps
    assert [type(step) for step in optional.steps] == [SendTexts, ExpectText, ExpectText]
    assert (optional.line, optional.client, optional.first.line) == (1, "a", 2)


UDP = 'transport = "udp"\n'


@pytest.mark.parametrize(
    ("head", "talk", "message"),
    [
        (HEAD, "hello", "line 1: 'hello' is not a line of a scene; write NAME> TEXT"),
        (HEAD, "\n\nalice: hi", "line 3: 'alice: hi' is not a line"),
        (HEAD, "# only this", "line 1: the talk is empty"),
        (HEAD, "a> x {=\\d}", "line 1: a pattern cannot be sent; write {NAME}"),
        (HEAD, "a> (eventually) x", "line 1: (eventually) is for texts that are received; write role"),
        (HEAD, "(optional)\na> x", "line 1: (optional) has no end; write (end)"),
        (HEAD, "(optional)\n(end)", "line 2: nothing is between (optional) and (end)"),
        (HEAD, "(optional)\na< x\n(end)", "line 2: (optional) has a text that a client sends, and texts"),
        (HEAD, "(optional)\na> x\na> (closes)", "line 3: (optional) has a text that a client sends, and"),
        (HEAD, "(optional)\na> x\nb< y", "line 3: (optional) is for one client, here a"),
        (HEAD, "(optional)\n(any order)", "line 2: (any order) inside (optional); end the first with"),
        (HEAD, "(optional)\na> x\n(end)", "line 1: what follows (optional) must show that it is over"),
        (HEAD, "(optional)\na> x\n(end)\na< y", "line 4: what follows (optional) must show that it is"),
        (HEAD, "(optional)\na> x\n(end)\nb> y", "a must send a text next, or close: write a> TEXT or a> ("),
        (
            HEAD,
            "(optional)\na> x\na< {n=.+}\n(end)\na> {n}",
            "line 5: no line before this one remembers {n}",
        ),
        (HEAD, "a> {tokn}", r"line 1: no line before this one remembers {tokn}; write \{tokn} for this text"),
        (
            HEAD,
            "a< {token=.+}\na> {tokn}",
            "line 2: no line before this one remembers {tokn}; did you mean {token}?",
        ),
        (HEAD, "a< {x=[}", "line 1: the pattern '[' is invalid"),
        (HEAD, "a< {x=(a|b)}", "has a group; write (?: instead of ("),
        (HEAD, "a< {x=}", "{x=} has no pattern; for example"),
        (HEAD, "a< {x=a", r"has no closing }; write \{ if it is text"),
        (HEAD, "a< {x=a} {x=b}", "line 1: {x=...} is twice in one text"),
        (HEAD, "a< {x=a} {x}", "line 1: {x} is used in the text that remembers it"),
        (HEAD, "a> {}", r"line 1: {} has no name; write \{}"),
        (HEAD, "a> \\q", r"line 1: unknown escape \q; write \\ for a backslash"),
        (HEAD, "a> \\x1", r"line 1: \x needs 2 hexadecimal digits, found '1'"),
        (HEAD, "a> \\ud800", "half of a character"),
        (HEAD, "a> hex: 0g", "line 1: '0g' is not a byte in hexadecimal; write two digits, such as 0a"),
        (HEAD, "a> hex: 012", "'2' is not a byte in hexadecimal"),
        (HEAD, "a> (conects)", "there is no event (conects); did you mean (connects)?"),
        (
            HEAD,
            "a> (nothing for 1 s)",
            "(nothing for 1 s) does not follow NAME>; write NAME< (nothing for 1 s)",
        ),
        (HEAD, "a< (waits 1 s)", "write NAME> (waits 1 s)"),
        (HEAD, "a< (nothing for 1)", "(nothing for 1) has no duration; write (nothing for 0.3 s) or"),
        (HEAD, "a> (waits 90 s)", "(waits 90 s) is not between 0 and 30 s"),
        (HEAD, "a< (within 1 s)", "(within 1 s) has no text after it; write a< (within 1 s) TEXT"),
        (HEAD, "a> (unfinished", r"'(unfinished' is not an event; write \( if the text begins"),
        (HEAD, "a> (closes) now", "line 1: 'now' follows an event; write it on a line of its own"),
        (HEAD, "a> (closes)", "line 1: a has not connected yet; write a> (connects) before"),
        (
            HEAD,
            "a> x\na> (closes)\na> y",
            "line 3: a has no connection any more, so it cannot send; write a> (conn",
        ),
        (HEAD, "a> x\na< (closes)\na< y", "line 3: a has no connection any more, so it cannot receive"),
        (HEAD, "a> x\na> (half-closes)\na> y", "line 3: a has shut down its write side, so it cannot send"),
        (
            HEAD,
            "a> x\na< (half-closes)\na< y",
            "line 3: a has received the end of the stream, so it cannot receive",
        ),
        (HEAD, "a> (connects to {p})", "line 1: no line before this one remembers {p}"),
        (HEAD, "a> (connects to {=x})", "line 1: a port cannot be a pattern; write a> (connects to {NAME})"),
        (HEAD, "a< (connects)", "(connects) does not follow NAME<; write NAME> (connects)"),
        (HEAD, "a> x\na> (connects)", "line 2: a is connected already; write a/2> for a second connection"),
        (HEAD, "a| x", "line 1: a| gives an alternative to the line before it; write it right below a< TEXT"),
        (HEAD, "a< x\nb| y", "line 2: b| gives an alternative"),
        (HEAD, "(any order)\na< x", "line 1: (any order) has no end; write (end)"),
        (HEAD, "(any order)\na> x\n(end)", "line 2: only texts that are received can be in any order"),
        (HEAD, "(any order)\n(end)", "line 2: nothing is between (any order) and (end)"),
        (HEAD, "a> x\n(end)", "line 2: (end) without (any order) or (optional)"),
        (HEAD, "(any order)\n(any order)", "line 2: (any order) inside (any order)"),
        (HEAD, "a> x\\ny", r"line 1: a line cannot contain \n; its end is sent by itself"),
        ('transport = "tcp"\n', "a> ", "line 1: without framing, nothing would be sent"),
        (UDP, "a> x\na< (closes)", "line 2: (closes) is for connections, and a uses datagrams"),
        (UDP, "a> x\na> (half-closes)", "line 2: (half-closes) is for connections"),
        (
            "transport='tcp'\nframing='fixed'\nmessage_bytes=4\n",
            "a> 12345",
            "line 1: 5 bytes do not fit; a message has",
        ),
        ("transport='tcp'\nframing='length'\nlength_bytes=1\n", f"a> {'x' * 256}", "256 bytes do not fit"),
        ("transport='tcp'\nframing='headers'\n", r"a> x\na b", "'a b' is not a field NAME: VALUE"),
        ("transport='tcp'\nframing='fixed'\n", "a> x", "fixed needs the size of a message"),
        (
            "transport='tcp'\nlength_bytes=2\n",
            "a> x",
            "length_bytes': it needs framing = 'length'; framing is 'none'",
        ),
    ],
)
def test_invalid_line_is_reported_with_its_number(head: str, talk: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_contract(talk, head)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[scene]]\nname='!'\ntalk='a> x'", "it has no letter and no digit"),
        (
            "[[scene]]\nname='A b'\ntalk='a> x'\n[[scene]]\nname='a-B'\ntalk='a> x'",
            "scene-a-b, as that of 'A b'",
        ),
        ("[[scene]]\nname='x'\ntalk='a> x'\nrepeet='no'", "unknown key `repeet`; did you mean 'repeat'?"),
        ("[[scene]]\nname='x'\ntalk='a> x'\nrepeat='often'", "use no, after, beside"),
        ("[[scene]]\nname='x'\ntalk='a> x'\nclients={b='udp'}", "'b' has no line in the talk; there is a"),
        ("[[scene]]\nname='x'\ntalk='a> x'\nclients={a='sctp'}", "use tcp, udp"),
        ("[[scene]]\nname='x'\ntalk='a> x'\nupstreams=['b']", "'b' has no line in the talk; there is a"),
        (
            '[[scene]]\nname="x"\nupstreams=["b"]\ntalk="""\na> x\nb> (connects)"""',
            "b does not connect: the program does; write b< (connects)",
        ),
        ("message_padding=' '\n[[scene]]\nname='x'\ntalk='a> x'", "it needs framing = 'fixed'"),
        ('[[scene]]\nname="x"\ntalk="""\na< {x=\\w+}"""', "inside ''' ''' a backslash is itself"),
        ("line_end='\\r'\n[[scene]]\nname='x'\ntalk='a> x'", r'use "\n", "\r\n"'),
        ("[answer]\nnothing=true\nmatches='a'\n[[scene]]\nname='x'\ntalk='a> x'", "matches and nothing"),
    ],
)
def test_invalid_table_is_reported(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(HEAD + text, "own.toml", "own", Path())
    assert message in str(raised.value)


def test_transport_of_each_client() -> None:
    scene = read_scene("sensor> 21\nsensor/2> 22\nviewer< 21", table="clients = { sensor = 'udp' }")
    assert [scene.is_datagram(name) for name in ("sensor", "sensor/2", "viewer")] == [True, True, False]
    scene = read_scene("sensor> 21\nviewer< 21", head=UDP, table="clients = { viewer = 'tcp' }")
    assert [scene.is_datagram(name) for name in ("sensor", "viewer")] == [True, False]


def test_slug() -> None:
    assert slug("A message -- reaches the others!") == "a-message-reaches-the-others"
    assert slug("Gr\u00fc\u00dfe_2") == "gr\u00fc\u00dfe-2"


def test_talk_with_crlf_line_ends() -> None:
    assert len(parse_talk("a> x\r\na< y\r\n", lambda _client: False)) == 2
