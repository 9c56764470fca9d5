"""The log: what peers say, who comes and goes, and nothing that could drive a terminal."""

from __future__ import annotations

import errno
import io

import pytest

from bothends.endpoints import Address
from bothends.errors import HandshakeFailed
from bothends.events import (
    Cause,
    Closed,
    Draining,
    Dropped,
    Established,
    Event,
    Exited,
    Failed,
    Opened,
    Received,
    Refused,
    Relieved,
    Sent,
    Slowed,
    Strained,
)
from bothends.log.text import SHOWN, TextLog, message_lines
from bothends.log.throttle import Repeated

PEER = Address("inet", "192.0.2.1", 5000)
LOCAL = Address("inet", "192.0.2.2", 12000)


def logged(
    *events: Event, colour: bool = False, quiet: bool = False, dump: bool = False, name: str = ""
) -> tuple[str, str]:
    """What a log of these events puts on the stream for messages, and on the other."""
    messages, other = io.StringIO(), io.StringIO()
    log = TextLog(
        messages=messages,
        happenings=None if quiet else other,
        troubles=other,
        colour=lambda _stream: colour,
        dump=dump,
        name=name,
    )
    for event in events:
        log(event)
    return messages.getvalue(), other.getvalue()


def test_a_message_is_shown_as_address_and_text() -> None:
    assert logged(Received(1, PEER, b"hello\n")) == ("192.0.2.1#5000: hello\n", "")


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"hello", ["hello"]),
        (b"two\r\nlines\n", ["two", "lines"]),
        (b"", [""]),
        (b"\n", [""]),
        (b"padded" + bytes(74), ["padded [and 74 NULs]"]),
        (b"one NUL\0", ["one NUL\\x00"]),
        (b"\x1b[2J\x07", ["\\x1b[2J\\x07"]),
        (b"\xff\xc3\xa9", ["\\xffé"]),
        (b"x" * (SHOWN + 5), ["x" * SHOWN + " [and 5 bytes more]"]),
    ],
)
def test_messages_are_cut_into_lines_escaped_and_bounded(data: bytes, lines: list[str]) -> None:
    assert message_lines(data) == lines


def test_an_unnamed_unix_client_is_told_from_the_next_by_its_number() -> None:
    assert logged(Received(3, Address("unix"), b"hi"))[0] == "unix#3: hi\n"


def test_comings_and_goings_are_told_apart_from_messages() -> None:
    messages, other = logged(
        Opened(1, PEER, LOCAL),
        Established(1, LOCAL, PEER, "PROXY v2"),
        Closed(1, PEER, Cause.RESET, 6, 4),
        Refused(PEER, "2 connections are open, the limit"),
        Dropped(PEER, "too fast"),
        Strained(errno.EMFILE, 1000),
        Relieved(),
        Draining(2, 5.0),
        Exited(42, "worker", -9),
    )
    assert messages == ""
    assert other.splitlines() == [
        "192.0.2.1#5000 connected",
        "192.0.2.2#12000 calls through 192.0.2.1#5000: PROXY v2",
        "192.0.2.1#5000 closed: reset by the peer (6 bytes in, 4 out)",
        "192.0.2.1#5000 refused: 2 connections are open, the limit",
        "192.0.2.1#5000 gets no answer: too fast",
        "accepting stops: EMFILE (Too many open files) with 1000 connections open; newcomers wait",
        "accepting goes on",
        "draining: 2 connections may end within 5 s",
        "worker 42 ended with signal 9",
    ]


def test_a_failed_service_is_told_with_its_line_and_no_traceback() -> None:
    def shout(message: bytes) -> bytes:
        raise ValueError(f"bad \x1b {message!r}")

    with pytest.raises(ValueError, match="bad") as caught:
        shout(b"x")
    _, other = logged(Failed(1, PEER, caught.value), quiet=True)
    assert other.startswith(
        "192.0.2.1#5000 the service failed: ValueError: bad \\x1b b'x' (test_text.py, line "
    )
    assert other.count("\n") == 1


def test_quiet_leaves_only_troubles() -> None:
    assert logged(Opened(1, PEER, LOCAL), quiet=True) == ("", "")
    assert logged(Refused(PEER, "full"), quiet=True)[1] == "192.0.2.1#5000 refused: full\n"


def test_colour_only_where_it_is_wanted() -> None:
    assert "\x1b[36m192.0.2.1#5000\x1b[0m: hello" in logged(Received(1, PEER, b"hello"), colour=True)[0]


class _Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_who_has_gone_does_not_stop_the_server() -> None:
    other = io.StringIO()
    log = TextLog(messages=_Gone(), happenings=other, troubles=other, colour=lambda _stream: False)
    log(Received(1, PEER, b"a"))
    log(Received(1, PEER, b"b"))
    log(Opened(1, PEER, LOCAL))
    assert other.getvalue() == "192.0.2.1#5000 connected\n"


def test_a_dump_shows_both_directions_each_with_its_own_offsets() -> None:
    messages, other = logged(
        Received(1, PEER, b"hello\n"),
        Sent(1, PEER, b"HELLO\n"),
        Received(1, PEER, b"\x1b"),
        Received(2, LOCAL, b"x" * 17),
        Closed(1, PEER, Cause.PEER, 7, 6),
        Received(1, PEER, b"anew"),
        Received(0, PEER, b""),
        dump=True,
        quiet=True,
    )
    assert messages.splitlines() == [
        "192.0.2.1#5000 <- 00000000  68 65 6c 6c 6f 0a                                 |hello.|",
        "192.0.2.1#5000 -> 00000000  48 45 4c 4c 4f 0a                                 |HELLO.|",
        "192.0.2.1#5000 <- 00000006  1b                                                |.|",
        "192.0.2.2#12000 <- 00000000  78 78 78 78 78 78 78 78  78 78 78 78 78 78 78 78  |xxxxxxxxxxxxxxxx|",
        "192.0.2.2#12000 <- 00000010  78                                                |x|",
        "192.0.2.1#5000 <- 00000000  61 6e 65 77                                       |anew|",
        "192.0.2.1#5000 <- 00000000  an empty message",
    ]
    assert other == ""


def test_what_is_sent_is_told_in_a_dump_only() -> None:
    assert logged(Sent(1, PEER, b"x")) == ("", "")


def test_where_several_servers_write_each_line_says_whose_it_is() -> None:
    assert logged(Received(1, PEER, b"a\nb"), Opened(1, PEER, LOCAL), name="upper") == (
        "[upper] 192.0.2.1#5000: a\n[upper] 192.0.2.1#5000: b\n",
        "[upper] 192.0.2.1#5000 connected\n",
    )


@pytest.mark.parametrize(
    ("like", "line"),
    [
        (Refused(PEER, "full"), "1,204 more refused in the last 10 s; the last: 192.0.2.1#5000, full"),
        (
            Dropped(PEER, "too fast"),
            "1,204 more got no answer in the last 10 s; the last: 192.0.2.1#5000, too fast",
        ),
        (
            Slowed(1, PEER, 9),
            "1,204 more sent too fast in the last 10 s; the last: 192.0.2.1#5000, more than 9 bytes a second",
        ),
        (
            Failed(1, PEER, HandshakeFailed("192.0.2.1#5000", "no TLS")),
            "1,204 more failed in the last 10 s; the last: 192.0.2.1#5000, no TLS",
        ),
    ],
)
def test_what_was_kept_back_is_told_as_one_line(like: Event, line: str) -> None:
    assert logged(Repeated(like, 1204, 9.98), quiet=True)[1] == line + "\n"


def test_troubles_that_nobody_can_read_stop_nothing() -> None:
    log = TextLog(messages=None, happenings=None, troubles=_Gone(), colour=lambda _stream: False)
    log(Refused(PEER, "a"))
    log(Refused(PEER, "b"))
