"""The log for programs: whole lines of JSON, whatever a peer sends, as docs/reference/log.md has them."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends import events
from bothends.endpoints import Address, Endpoint
from bothends.events import (
    Cause,
    Closed,
    Connected,
    Event,
    Failed,
    Finished,
    Listening,
    Opened,
    Received,
    Refused,
    Sent,
    Stopped,
    Strained,
    Unconnected,
    Why,
)
from bothends.log.json import EVENT_NAMES, KEPT, VERSION, JsonLog, event_name
from bothends.log.throttle import Repeated

PEER = Address("inet", "192.0.2.1", 5000)
PEER_SHOWN = {"family": "inet", "host": "192.0.2.1", "port": 5000}
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "log.md"
PIPE_BUF = 4096
CLIENTS = {Connected, Unconnected, Finished}  # told by `connect --trace`, and never logged
EVENTS = [
    each
    for each in vars(events).values()
    if isinstance(each, type) and issubclass(each, Event) and each is not Event
]


def logged(*told: Event, **how: Any) -> list[dict[str, Any]]:
    """The records of these events, read back."""
    stream = io.StringIO()
    log = JsonLog(stream, **how)
    for event in told:
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
            Opened(1, PEER, Address("unix", "/run/a.sock")),
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
            Closed(1, PEER, Cause.IDLE, 3, 4),
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
            Refused(PEER, "2 connections are open", Why.FULL),
            {"event": "refused", "peer": PEER_SHOWN, "reason": "2 connections are open", "why": "full"},
        ),
        (Strained(errno.EMFILE, 9), {"event": "strained", "errno": errno.EMFILE, "open": 9}),
        (
            Failed(1, PEER, ValueError("bad \x1b")),
            {
                "event": "failed",
                "connection": 1,
                "peer": PEER_SHOWN,
                "error": {"type": "ValueError", "text": "bad \\x1b", "raised": ""},
            },
        ),
        (
            Repeated(Refused(PEER, "full", Why.FULL), 1204, 10.0),
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
def test_an_event_is_a_record_of_its_fields(event: Event, shown: dict[str, Any]) -> None:
    assert record(event) == shown


def test_bytes_are_shown_in_hexadecimal_too_where_that_is_wanted() -> None:
    assert record(Sent(0, PEER, b"\x00z"), dump=True)["hex"] == "007a"


def test_the_beginning_of_a_long_message_and_its_length() -> None:
    found = record(Received(1, PEER, b"x" * 100_000), dump=True)
    assert (found["length"], found["text"], found["hex"]) == (100_000, "x" * KEPT, "78" * KEPT)


def test_quiet_leaves_what_went_wrong_and_messages_where_they_are_the_point() -> None:
    told = [Opened(1, PEER, PEER), Received(1, PEER, b"x"), Refused(PEER, "full"), Stopped()]
    assert [each["event"] for each in logged(*told, quiet=True)] == ["refused"]
    assert [each["event"] for each in logged(*told, quiet=True, messages=True)] == ["received", "refused"]


def test_where_several_servers_write_each_record_says_whose_it_is() -> None:
    assert record(Stopped(), name="upper")["server"] == "upper"


@given(
    st.binary(max_size=3 * KEPT),
    st.text(max_size=2000) | st.sampled_from(["\\" * 3000, "\x1b" * 3000, "\U0001f600" * 3000]),
)
def test_no_bytes_and_no_words_make_a_line_too_long_or_two_of_one(data: bytes, words: str) -> None:
    path = Address("unix", "/" + words[:107])
    logged(Received(1, path, data), Sent(0, path, b"\x1b" * 5000), dump=True, name="server")
    logged(
        Refused(path, words),
        Failed(1, path, ValueError(words)),
        Repeated(Failed(1, path, OSError(words)), 1, 2.0),
    )


class _Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_who_has_gone_does_not_stop_the_server() -> None:
    JsonLog(_Gone())(Stopped())


@pytest.mark.parametrize("event", [*sorted({*EVENTS} - CLIENTS, key=event_name), Repeated], ids=event_name)
def test_the_reference_names_every_event_and_every_field(event: type[Event]) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*)\|", REFERENCE.read_text(encoding="utf-8"), re.M))
    fields = {field.name for field in dataclasses.fields(event)} - {"at"}
    if "data" in fields:
        fields = fields - {"data"} | {"length", "text"}
    assert set(re.findall(r"`(\w+)`", rows[event_name(event)])) == fields


def test_event_names_table_is_complete_and_free_of_duplicates() -> None:
    assert set(EVENT_NAMES) == {*EVENTS, Repeated}
    assert len(set(EVENT_NAMES.values())) == len(EVENT_NAMES)


@pytest.mark.parametrize("kinds", [Cause, Why])
def test_the_reference_names_every_cause_and_every_reason(kinds: type[Cause] | type[Why]) -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    assert [kind for kind in kinds if f"`{kind.name.lower()}`" not in text] == []
