"""The JSON log: one record a line for any input, as docs/reference/log.md specifies."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bothends import events
from bothends.endpoints import Address, Endpoint
from bothends.events import (
    Accepted,
    AcceptPaused,
    Closed,
    CloseReason,
    Connected,
    ConnectFailed,
    ConnectionRejected,
    Event,
    Listening,
    Received,
    RejectReason,
    Sent,
    ServiceFailed,
    Stopped,
    WriteShutdown,
)
from bothends.log.json import EVENT_NAMES, MAX_MESSAGE_BYTES, VERSION, JsonLog, event_name
from bothends.log.throttle import Repeated

PEER = Address("inet", "192.0.2.1", 5000)
PEER_SHOWN = {"family": "inet", "host": "192.0.2.1", "port": 5000}
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "log.md"
PIPE_BUF = 4096
CLIENT_EVENTS = {
    Connected,
    ConnectFailed,
    WriteShutdown,
}  # emitted by clients, for `connect --trace`; servers do not log them
EVENTS = [
    each
    for each in vars(events).values()
    if isinstance(each, type) and issubclass(each, Event) and each is not Event
]


def logged(*events: Event, **how: Any) -> list[dict[str, Any]]:
    """Return the parsed records of these events."""
    stream = io.StringIO()
    log = JsonLog(stream, **how)
    for event in events:
        log(event)
    lines = stream.getvalue().splitlines(keepends=True)
    assert all(line.endswith("\n") and line.isascii() and len(line) <= PIPE_BUF for line in lines)
    return [json.loads(line) for line in lines]


def record(event: Event, **how: Any) -> dict[str, Any]:
    [found] = logged(event, **how)
    assert (found.pop("v"), found.pop("at")) == (VERSION, event.at)
    return found


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (Listening(Endpoint.parse("tcp://:12000")), {"event": "listening", "endpoint": "tcp://:12000"}),
        (
            Accepted(1, PEER, Address("unix", "/run/a.sock")),
            {
                "event": "opened",
                "connection": 1,
                "peer": PEER_SHOWN,
                "local": {"family": "unix", "host": "/run/a.sock", "port": 0},
            },
        ),
        (
            Received(1, PEER, b"caf\xc3\xa9\n\xff"),
            {"event": "received", "connection": 1, "peer": PEER_SHOWN, "length": 7, "text": "café\\n\\xff"},
        ),
        (
            Closed(1, PEER, CloseReason.IDLE, 3, 4),
            {
                "event": "closed",
                "connection": 1,
                "peer": PEER_SHOWN,
                "cause": "idle",
                "received": 3,
                "sent": 4,
            },
        ),
        (
            ConnectionRejected(PEER, "2 connections are open", RejectReason.FULL),
            {"event": "refused", "peer": PEER_SHOWN, "reason": "2 connections are open", "why": "full"},
        ),
        (AcceptPaused(errno.EMFILE, 9), {"event": "strained", "errno": errno.EMFILE, "open": 9}),
        (
            ServiceFailed(1, PEER, ValueError("bad \x1b")),
            {
                "event": "failed",
                "connection": 1,
                "peer": PEER_SHOWN,
                "error": {"type": "ValueError", "text": "bad \\x1b", "raised": ""},
            },
        ),
        (
            Repeated(ConnectionRejected(PEER, "full", RejectReason.FULL), 1204, 10.0),
            {
                "event": "repeated",
                "like": {"event": "refused", "peer": PEER_SHOWN, "reason": "full", "why": "full"},
                "count": 1204,
                "seconds": 10.0,
            },
        ),
        (Stopped(), {"event": "stopped"}),
    ],
)
def test_event_is_encoded_by_fields(event: Event, shown: dict[str, Any]) -> None:
    assert record(event) == shown


def test_dump_adds_hex() -> None:
    assert record(Sent(0, PEER, b"\x00z"), dump=True)["hex"] == "007a"


def test_long_message_is_truncated_with_length() -> None:
    found = record(Received(1, PEER, b"x" * 100_000), dump=True)
    assert (found["length"], found["text"], found["hex"]) == (
        100_000,
        "x" * MAX_MESSAGE_BYTES,
        "78" * MAX_MESSAGE_BYTES,
    )


def test_quiet_keeps_problems_and_optional_messages() -> None:
    emitted = [Accepted(1, PEER, PEER), Received(1, PEER, b"x"), ConnectionRejected(PEER, "full"), Stopped()]
    assert [each["event"] for each in logged(*emitted, quiet=True)] == ["refused"]
    assert [each["event"] for each in logged(*emitted, quiet=True, messages=True)] == ["received", "refused"]


def test_records_have_server_name() -> None:
    assert record(Stopped(), name="upper")["server"] == "upper"


@given(
    st.binary(max_size=3 * MAX_MESSAGE_BYTES),
    st.text(max_size=2000) | st.sampled_from(["\\" * 3000, "\x1b" * 3000, "\U0001f600" * 3000]),
)
def test_record_is_one_line_below_pipe_buf(data: bytes, words: str) -> None:
    path = Address("unix", "/" + words[:107])
    logged(Received(1, path, data), Sent(0, path, b"\x1b" * 5000), dump=True, name="server")
    logged(
        ConnectionRejected(path, words),
        ServiceFailed(1, path, ValueError(words)),
        Repeated(ServiceFailed(1, path, OSError(words)), 1, 2.0),
    )


class _BrokenStream(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_broken_stream_is_ignored() -> None:
    JsonLog(_BrokenStream())(Stopped())


@pytest.mark.parametrize(
    "event", [*sorted({*EVENTS} - CLIENT_EVENTS, key=event_name), Repeated], ids=event_name
)
def test_reference_lists_every_event_and_field(event: type[Event]) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*)\|", REFERENCE.read_text(encoding="utf-8"), re.M))
    fields = {field.name for field in dataclasses.fields(event)} - {"at"}
    if "data" in fields:
        fields = fields - {"data"} | {"length", "text"}
    assert set(re.findall(r"`(\w+)`", rows[event_name(event)])) == fields


def test_event_names_table_is_complete_and_free_of_duplicates() -> None:
    assert set(EVENT_NAMES) == {*EVENTS, Repeated}
    assert len(set(EVENT_NAMES.values())) == len(EVENT_NAMES)


@pytest.mark.parametrize("kinds", [CloseReason, RejectReason])
def test_reference_lists_every_close_and_reject_reason(kinds: type[CloseReason] | type[RejectReason]) -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    names = {kind: str(kind) if kinds is RejectReason else kind.name.lower() for kind in kinds}
    assert [kind for kind, name in names.items() if f"`{name}`" not in text] == []


@given(st.binary(max_size=500), st.text(max_size=40), st.sampled_from(CloseReason), st.booleans())
@example(b'"', "h", CloseReason.PEER, False)
@example(b"\n", "h", CloseReason.PEER, False)
@example(b"\xc3\xa9", "h", CloseReason.PEER, False)
@example(b"x" * (MAX_MESSAGE_BYTES + 1), "h", CloseReason.PEER, False)
def test_events_formatted_by_hand_are_as_the_others(
    data: bytes, host: str, cause: CloseReason, named: bool
) -> None:
    peer, name = Address("unix", host), 'a"b' * named
    for event in (
        Accepted(7, peer, PEER), Received(7, peer, data), Sent(0, peer, data), Closed(7, peer, cause, 3, 4)
    ):  # fmt: skip
        [by_hand] = logged(event, name=name)
        [by_encoder] = logged(event, name=name, dump=True)  # which formats nothing by hand
        by_encoder.pop("hex", None)
        assert list(by_hand.items()) == list(by_encoder.items())
