"""What was received, compared with what a scene expects, whatever the chunks."""

from __future__ import annotations

import pytest

from bothends.check.scenes.inbox import (
    HeaderInbox,
    Inbox,
    MessageInbox,
    StreamInbox,
    TextMatch,
    WrongMessage,
)
from bothends.check.scenes.template import TextTemplate, parse_text
from bothends.framing import FixedSize, Framing, LengthPrefixed, Lines

TEXTS = [parse_text("OK"), parse_text(r"id {id=\d+}"), parse_text("{name}!")]
VALUES = {"name": b"al.ce"}


def take(
    inbox: Inbox, *, final: bool = False, texts: list[TextTemplate] = TEXTS
) -> TextMatch | WrongMessage | None:
    return inbox.take(texts, VALUES, final=final)


@pytest.mark.parametrize(
    "framing", [Lines(), LengthPrefixed(1), LengthPrefixed(3, byteorder="little"), FixedSize(8)], ids=repr
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_messages_with_framing(framing: Framing, size: int) -> None:
    inbox = MessageInbox(framing)
    data = b"".join(map(framing.encode, (b"OK", b"id 42", b"al.ce!", b"alice!", b"OK.")))
    for at in range(0, len(data), size):
        inbox.feed(data[at : at + size])
    assert take(inbox) == TextMatch(0, {})
    assert take(inbox) == TextMatch(1, {"id": b"42"})
    assert take(inbox) == TextMatch(2, {})
    assert take(inbox) == WrongMessage(b"alice!")
    assert take(inbox) == WrongMessage(b"OK.")
    assert take(inbox) is None
    assert inbox.is_empty


def test_unfinished_message_is_pending() -> None:
    inbox = MessageInbox(Lines())
    inbox.feed(b"OK\nOK")
    assert not inbox.has_only_part
    assert take(inbox) == TextMatch(0, {})
    assert take(inbox) is None
    assert (inbox.has_only_part, inbox.pending) == (True, b"OK")
    inbox.discard()
    assert inbox.is_empty


def test_impossible_length_is_wrong() -> None:
    inbox = MessageInbox(LengthPrefixed(4, limit=1000))
    inbox.feed(b"HTTP/1.1 400 Bad Request")
    assert take(inbox) == WrongMessage(b"HTTP")


def test_datagrams() -> None:
    inbox = MessageInbox(None)
    inbox.feed(b"")
    assert not inbox.is_empty
    assert take(inbox) == WrongMessage(b"")
    inbox.feed(b"OK")
    inbox.feed(b"OK")
    assert take(inbox) == take(inbox) == TextMatch(0, {})


def test_stream_without_framing() -> None:
    inbox = StreamInbox()
    assert take(inbox) is None
    inbox.feed(b"O")
    assert take(inbox, final=True) is None
    inbox.feed(b"Kid 4")
    assert take(inbox) == TextMatch(0, {})
    assert take(inbox) is None  # a digit may follow
    inbox.feed(b"2id 7")
    assert take(inbox) == TextMatch(1, {"id": b"42"})
    assert take(inbox, final=True) == TextMatch(1, {"id": b"7"})
    inbox.feed(b"id x")
    assert take(inbox) is None  # a pattern could match as soon as more is received
    inbox.discard()
    inbox.feed(b"alice")
    assert take(inbox) == WrongMessage(b"alice")


def test_last_datagram_may_be_repeated() -> None:
    inbox = MessageInbox(None, repeats=True)
    for data in (b"OK", b"OK", b"id 1", b"OK", b"id 1"):
        inbox.feed(data)
    assert take(inbox) == TextMatch(0, {})
    assert take(inbox, texts=TEXTS[1:]) == TextMatch(0, {"id": b"1"})
    assert not inbox.is_empty  # "OK" is not the last one any more
    assert inbox.pending == b"OK"
    assert take(inbox, texts=TEXTS[1:]) == WrongMessage(b"OK")
    assert inbox.is_empty
    assert take(inbox, texts=TEXTS[1:]) == TextMatch(0, {"id": b"1"})  # unless it is expected


def test_eventually_skips_what_precedes() -> None:
    inbox = MessageInbox(Lines())
    inbox.feed(b"a\nb\nOK\nc\n")
    assert inbox.take(TEXTS, VALUES, final=False, eventually=True) == TextMatch(0, {})
    assert inbox.take(TEXTS, VALUES, final=False, eventually=True) is None
    assert inbox.pending == b"c"
    stream = StreamInbox()
    stream.feed(b"a b O")
    assert stream.take(TEXTS, VALUES, final=False, eventually=True) is None
    stream.feed(b"K.")
    assert stream.take(TEXTS, VALUES, final=False, eventually=True) == TextMatch(0, {})
    assert stream.pending == b"."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r"HTTP/1.1 404 {=.*}", 'its first line is "HTTP/1.1 200 OK"'),
        (r"HTTP/1.1 200 OK\nX: 1", "it has no X"),
        (r"HTTP/1.1 200 OK\ncontent-TYPE: text/html", 'its content-TYPE is "text/plain"'),
        (r"HTTP/1.1 200 OK\n\nbye", 'its body is "hello" (5 bytes)'),
        (r"HTTP/1.1 200 OK\nContent-Type: text/{kind=\w+}\n\n{body=.*}", ""),
        (r"HTTP/1.1 200 {=.*}", ""),
    ],
)
def test_message_with_headers(text: str, reason: str) -> None:
    inbox = HeaderInbox()
    inbox.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello")
    found = take(inbox, texts=[parse_text(text)])
    if reason:
        assert isinstance(found, WrongMessage)
        assert found.reason == reason
    else:
        assert isinstance(found, TextMatch)
        assert found.values in ({}, {"kind": b"plain", "body": b"hello"})


def test_long_difference_is_located() -> None:
    inbox = MessageInbox(None)
    inbox.feed(b"x" * 300 + b"y" * 300)
    found = take(inbox, texts=[parse_text("x" * 600)])
    assert isinstance(found, WrongMessage)
    assert found.reason.startswith("which differs from byte 300 on: ")
