"""Events as JSON for programs: an object a line (docs/reference/log.md is its schema).

1. Every record has `v`, the version of the schema, `at`, nanoseconds since 1970, and `event`. The other
   names are those of the event's fields, in `events.py`; new ones may come, so a reader ignores what
   it doesn't know. What changes or goes away makes a new version.
2. What comes from a peer is text, escaped as in the log for people: `escape` is reversible, and no reader
   has to know what to do with bytes that are no UTF-8.
3. A line stays below PIPE_BUF (4,096 bytes), up to which a write to a pipe is never mixed with another
   process' (pipe(7)). So of the bytes of a message the first KEPT are shown, and the length of all.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final, TextIO

from bothends.endpoints import Address, Endpoint
from bothends.escaping import escape, escape_text
from bothends.events import (
    Cause,
    Closed,
    Connected,
    Draining,
    Dropped,
    Ended,
    Established,
    Event,
    Exited,
    Failed,
    Finished,
    Listening,
    NotReloaded,
    Opened,
    Received,
    Refused,
    Relieved,
    Reloaded,
    Sent,
    Slowed,
    Stopped,
    Strained,
    Unconnected,
)
from bothends.log.text import raised_at
from bothends.log.throttle import Repeated

VERSION: Final = 1

# The names on the wire: readers depend on them, so they stay when a class is renamed.
EVENT_NAMES: Final[dict[type[Event], str]] = {
    Listening: "listening",
    Opened: "opened",
    Connected: "connected",
    Unconnected: "unconnected",
    Established: "established",
    Received: "received",
    Sent: "sent",
    Ended: "ended",
    Finished: "finished",
    Closed: "closed",
    Failed: "failed",
    Slowed: "slowed",
    Refused: "refused",
    Dropped: "dropped",
    Strained: "strained",
    Relieved: "relieved",
    Draining: "draining",
    Reloaded: "reloaded",
    NotReloaded: "not_reloaded",
    Exited: "exited",
    Stopped: "stopped",
    Repeated: "repeated",
}

KEPT: Final = 384
"""Bytes of a message. Escaped and then quoted, one byte may become five characters; two more for `hex`."""

# Of any other text (a reason, what an exception says, a path), in bytes of JSON.
_LONGEST: Final = 800

_MESSAGES: Final = frozenset({Received, Sent})
_HAPPENINGS: Final = frozenset({Listening, Opened, Established, Ended, Closed, Stopped})


class JsonLog:
    """An observer that writes events as JSON.

    Args:
        stream: where to.
        quiet: leave out messages, comings and goings: only what went wrong.
        messages: whether messages are shown though it is quiet.
        dump: show the bytes in hexadecimal too.
        name: what the server is called, where there are several; in each record as `server`.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        quiet: bool = False,
        messages: bool = False,
        dump: bool = False,
        name: str = "",
    ) -> None:
        self._stream = stream
        self._left_out: frozenset[type[Event]] = frozenset()
        if quiet:
            self._left_out = _HAPPENINGS if messages else _HAPPENINGS | _MESSAGES
        self._dump = dump
        self._name = {"server": name} if name else {}

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if type(event) in self._left_out:
            return
        record = {"v": VERSION, "at": event.at, **self._name, **self._fields(event)}
        line = json.dumps(record, separators=(",", ":"))
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # whoever read the log has gone, or its disk is full; serving matters more

    def _fields(self, event: Event) -> dict[str, Any]:
        found: dict[str, Any] = {"event": event_name(type(event))}
        for field in dataclasses.fields(event):
            value = getattr(event, field.name)
            if isinstance(value, bytes):
                found["length"] = len(value)
                found["text"] = escape(value[:KEPT])
                if self._dump:
                    found["hex"] = value[:KEPT].hex()
            elif field.name != "at":
                found[field.name] = self._plain(value)
        return found

    def _plain(self, value: object) -> object:
        if isinstance(value, Address):
            return {"family": value.family, "host": _short(value.host), "port": value.port}
        if isinstance(value, Endpoint):
            return str(value)
        if isinstance(value, Cause):
            return value.name.lower()
        if isinstance(value, str):
            return _short(value)
        if isinstance(value, BaseException):
            kind, where = type(value).__name__, raised_at(value)
            return {"type": kind, "text": _short(str(value)), "raised": _short(where)}
        if isinstance(value, Event):  # what was repeated
            return self._fields(value)
        return value


def event_name(event: type[Event]) -> str:
    """The name of an event class in the log, from `EVENT_NAMES`."""
    return EVENT_NAMES[event]


def _short(text: str) -> str:
    text = shown = escape_text(text)
    while (size := len(json.dumps(shown))) > _LONGEST:
        shown = shown[: min(len(shown) - 1, len(shown) * _LONGEST // size)]
    return shown if shown == text else f"{shown}..."
