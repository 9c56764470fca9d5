"""The text log: messages, connections and problems, with peers' bytes escaped."""

from __future__ import annotations

import errno
import io

import pytest

from bothends.endpoints import Address
from bothends.errors import HandshakeFailed
from bothends.events import (
    Accepted,
    AcceptPaused,
    AcceptResumed,
    ChildExited,
    Closed,
    CloseReason,
    ConnectionRejected,
    DatagramDropped,
    Draining,
    Event,
    HandshakeCompleted,
    RateLimited,
    Received,
    Sent,
    ServiceFailed,
)
from bothends.log.text import MAX_MESSAGE_TEXT, TextLog, message_lines
from bothends.log.throttle import Repeated

PEER = Address("inet", "192.0.2.1", 5000)
LOCAL = Address("inet", "192.0.2.2", 12000)


def logged(
    *events: Event, colour: bool = False, quiet: bool = False, dump: bool = False, name: str = ""
) -> tuple[str, str]:
    """Return what a log of these events writes to the stream for messages, and to the other."""
    messages, other = io.StringIO(), io.StringIO()
    log = TextLog(
        messages=messages,
        activity=None if quiet else other,
        problems=other,
        colour=lambda _stream: colour,
        dump=dump,
        name=name,
    )
    for event in events:
        log(event)
    return messages.getvalue(), other.getvalue()


def test_message_line_has_address_and_text() -> None:
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
        (b"x" * (MAX_MESSAGE_TEXT + 5), ["x" * MAX_MESSAGE_TEXT + " [and 5 bytes more]"]),
    ],
)
def test_message_lines_are_escaped_and_bounded(data: bytes, lines: list[str]) -> None:
    assert message_lines(data) == lines


def test_unnamed_unix_client_has_connection_number() -> None:
    assert logged(Received(3, Address("unix"), b"hi"))[0] == "unix#3: hi\n"


def test_activity_goes_to_other_stream() -> None:
    messages, other = logged(
        Accepted(1, PEER, LOCAL),
        HandshakeCompleted(1, LOCAL, PEER, "PROXY v2"),
        Closed(1, PEER, CloseReason.RESET, 6, 4),
        ConnectionRejected(PEER, "2 connections are open, the limit"),
        DatagramDropped(PEER, "too fast"),
        AcceptPaused(errno.EMFILE, 1000),
        AcceptResumed(),
        Draining(2, 5.0),
        ChildExited(42, "worker", -9),
    )
    assert messages == ""
    assert other.splitlines() == [
        "192.0.2.1#5000 connected",
        "192.0.2.2#12000 via 192.0.2.1#5000: PROXY v2",
        "192.0.2.1#5000 closed: reset by the peer (6 bytes in, 4 out)",
        "192.0.2.1#5000 refused: 2 connections are open, the limit",
        "192.0.2.1#5000 gets no answer: too fast",
        "accepting paused: EMFILE (Too many open files) with 1000 connections open; clients wait",
        "accepting resumed",
        "draining: waiting up to 5 s for 2 connections",
        "worker 42 killed by signal 9",
    ]


def test_service_failure_names_line_without_traceback() -> None:
    def shout(message: bytes) -> bytes:
        raise ValueError(f"bad \x1b {message!r}")

    with pytest.raises(ValueError, match="bad") as caught:
        shout(b"x")
    _, other = logged(ServiceFailed(1, PEER, caught.value), quiet=True)
    assert other.startswith(
        "192.0.2.1#5000 the service failed: ValueError: bad \\x1b b'x' (test_text.py, line "
    )
    assert other.count("\n") == 1


def test_quiet_logs_only_problems() -> None:
    assert logged(Accepted(1, PEER, LOCAL), quiet=True) == ("", "")
    assert logged(ConnectionRejected(PEER, "full"), quiet=True)[1] == "192.0.2.1#5000 refused: full\n"


def test_colour_is_optional() -> None:
    assert "\x1b[36m192.0.2.1#5000\x1b[0m: hello" in logged(Received(1, PEER, b"hello"), colour=True)[0]


class _BrokenStream(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_broken_stream_is_ignored() -> None:
    other = io.StringIO()
    log = TextLog(messages=_BrokenStream(), activity=other, problems=other, colour=lambda _stream: False)
    log(Received(1, PEER, b"a"))
    log(Received(1, PEER, b"b"))
    log(Accepted(1, PEER, LOCAL))
    assert other.getvalue() == "192.0.2.1#5000 connected\n"


def test_dump_offsets_are_per_direction() -> None:
    messages, other = logged(
        Received(1, PEER, b"hello\n"),
        Sent(1, PEER, b"HELLO\n"),
        Received(1, PEER, b"\x1b"),
        Received(2, LOCAL, b"x" * 17),
        Closed(1, PEER, CloseReason.PEER, 7, 6),
        Received(1, PEER, b"next"),
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
        "192.0.2.1#5000 <- 00000000  6e 65 78 74                                       |next|",
        "192.0.2.1#5000 <- 00000000  empty message",
    ]
    assert other == ""


def test_sent_data_is_logged_only_in_dump() -> None:
    assert logged(Sent(1, PEER, b"x")) == ("", "")


def test_lines_have_server_name_prefix() -> None:
    assert logged(Received(1, PEER, b"a\nb"), Accepted(1, PEER, LOCAL), name="upper") == (
        "[upper] 192.0.2.1#5000: a\n[upper] 192.0.2.1#5000: b\n",
        "[upper] 192.0.2.1#5000 connected\n",
    )


@pytest.mark.parametrize(
    ("like", "line"),
    [
        (
            ConnectionRejected(PEER, "full"),
            "1,204 more refused in the last 10 s; most recent: 192.0.2.1#5000, full",
        ),
        (
            DatagramDropped(PEER, "too fast"),
            "1,204 more got no answer in the last 10 s; most recent: 192.0.2.1#5000, too fast",
        ),
        (
            RateLimited(1, PEER, 9),
            "1,204 more sent too fast in the last 10 s; most recent: 192.0.2.1#5000, more than 9 bytes/s",
        ),
        (
            ServiceFailed(1, PEER, HandshakeFailed("192.0.2.1#5000", "no TLS")),
            "1,204 more failed in the last 10 s; most recent: 192.0.2.1#5000, no TLS",
        ),
    ],
)
def test_repeated_events_are_one_line(like: Event, line: str) -> None:
    assert logged(Repeated(like, 1204, 9.98), quiet=True)[1] == line + "\n"


def test_broken_problem_stream_is_ignored() -> None:
    log = TextLog(messages=None, activity=None, problems=_BrokenStream(), colour=lambda _stream: False)
    log(ConnectionRejected(PEER, "a"))
    log(ConnectionRejected(PEER, "b"))
