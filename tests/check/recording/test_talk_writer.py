"""Recorded events as lines of a talk: what is written is what was sent."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from bothends.check.contract import parse
from bothends.check.recording.relay import Happening, RecordedEvent
from bothends.check.recording.talk_writer import (
    RecordedScene,
    TalkLine,
    choose_framing,
    remember_values,
    write_contract,
    write_lines,
    write_text,
)
from bothends.check.scenes.steps import ExpectText, SendTexts
from bothends.check.scenes.template import parse_text

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def events(*happened: tuple[int, str, bytes]) -> list[RecordedEvent]:
    return [RecordedEvent(client, Happening(what), data) for client, what, data in happened]


def shown(recorded: list[RecordedEvent], *, datagrams: bool = False) -> list[str]:
    framing, _ = choose_framing([recorded])
    return [
        str(line) for line in write_lines(recorded, "none" if datagrams else framing, datagrams=datagrams)
    ]


@hypothesis.given(st.binary(max_size=60))
@hypothesis.example(b" '''{a} {file:x} {x()} {bytes:3} \\ hex: 00 \xe2\x82\xac\xe2\x82 ")
@hypothesis.example(b"hex: 00")
@hypothesis.example(b"(closes)")
@hypothesis.example("\u2028\x85\x1b[31m".encode())
def test_any_text_is_read_back(data: bytes) -> None:
    written = write_text([data])
    assert parse_text(written).parts == (data,)
    scene = RecordedScene("one", [TalkLine("ann", ">", data or b"x"), TalkLine("ann", "<", data or b"x")])
    text = write_contract([scene], transport="tcp", framing="none", line_end="\n", command="x\n\x1b[1m'''")
    [parsed] = parse(text, "own.toml", "own", Path()).scenes
    sent, received = parsed.steps
    assert isinstance(sent, SendTexts)
    assert isinstance(received, ExpectText)
    assert sent.texts[0].render({}) == received.choices[0].render({}) == (data or b"x")


def test_lines_of_several_clients() -> None:
    recorded = events(
        (0, "connects", b""), (0, "sends", b"a\nb"), (1, "connects", b""), (0, "sends", b"\n"),
        (1, "receives", b"x\r\ny\n"), (0, "ends", b""), (0, "receives EOF", b""), (1, "resets", b""),
    )  # fmt: skip
    assert shown(recorded) == [
        "ann> (connects)", "ann> a", "ben> (connects)", "ann> b", "ben< x", "ben< y", "ann> (half-closes)",
        "ann< (closes)", "ben> (reset)",
    ]  # fmt: skip


def test_ends() -> None:
    assert shown(events((0, "sends", b"a"), (0, "ends", b""), (0, "closes", b""))) == [
        "ann> a",
        "ann> (closes)",
    ]
    assert shown(events((0, "receives", b"a"), (0, "receives EOF", b""), (0, "ends", b""))) == [
        "ann< a",
        "ann< (closes)",
    ]
    assert shown(events((0, "sends", b"a"), (0, "receives RST", b""), (0, "ends", b"")))[-1] == "ann< (reset)"


def test_framing() -> None:
    assert choose_framing([events((0, "sends", b"a\r\n"), (0, "receives", b"b\n"))]) == ("lines", "\r\n")
    assert choose_framing([events((0, "sends", b"a\n"), (0, "receives", b"b"))]) == ("none", "\n")
    assert choose_framing([events((0, "sends", b"\0\n"))]) == ("none", "\n")
    assert (
        choose_framing([events((0, "sends", GET), (0, "receives", b"HTTP/1.0 200 OK\r\n\r\n"))])[0]
        == "headers"
    )
    assert choose_framing([[]])[0] == "none"


def test_stream_without_framing_is_joined() -> None:
    recorded = events((0, "sends", b"a"), (0, "sends", b"b"), (0, "receives", b"c"), (0, "receives", b"d"))
    assert shown(recorded) == ["ann> ab", "ann< cd"]
    assert shown(recorded, datagrams=True) == ["ann> a", "ann> b", "ann< c", "ann< d"]


def test_headers() -> None:
    reply = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nab"
    recorded = events((0, "sends", GET + GET[:5]), (0, "receives", reply), (0, "sends", GET[5:]),
                      (0, "receives", b"HTTP/1.1 404 No\r\n\r\nbye"), (0, "receives EOF", b""))  # fmt: skip
    assert shown(recorded) == [
        r"ann> GET /a HTTP/1.1\nHost: x", r"ann< HTTP/1.1 200 OK\nContent-Type: text/plain\n\nab",
        r"ann> GET /a HTTP/1.1\nHost: x", r"ann< HTTP/1.1 404 No\n\nbye", "ann< (closes)",
    ]  # fmt: skip


def test_values_that_are_sent_back_are_remembered() -> None:
    lines = [
        TalkLine("ann", "<", b"hello a-1234, or 99"),
        TalkLine("ann", ">", b"a-1234 99 hello a-12345"),
        TalkLine("ann", "<", b"a-1234"),
    ]
    assert remember_values(lines) == 1
    assert [str(line) for line in lines] == [
        r"ann< hello {value1=[\w-]+}, or 99",
        "ann> {value1} 99 hello {value1}5",
        "ann< a-1234",
    ]


@pytest.mark.parametrize(
    ("text", "received", "line"),
    [
        (b"at 12:30, ok", b"at 09:07, ok", r"a< at {=\d+}:{=\d+}, ok"),
        (b"id abc", b"id xyz", r"a< id {=\w+}"),
        (b"id ab1", b"id 7x", r"a< id {=\w+}"),
        (b"same", b"", "a< {=.*}"),
        (b"nothing is the same", b"0123456789", "a< {=.*}"),
    ],
)
def test_text_that_varies(text: bytes, received: bytes, line: str) -> None:
    one = TalkLine("a", "<", text)
    assert one.vary(received)
    assert str(one) == line
    assert not one.vary(received)
