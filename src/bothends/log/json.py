"""Log events as JSON, one object a line (docs/reference/log.md is the schema).

1. Every record has `v`, the version of the schema, `at`, nanoseconds since 1970, and `event`. The other names
   are those of the event's fields in `events.py`. New fields may be added, so readers must ignore unknown
   ones; a changed or removed field increments the version.
2. Bytes of a peer are text, escaped as in the text log: `escape` is reversible, and readers need not handle
   invalid UTF-8.
3. The four events of which a busy server has most are formatted by hand, three times as fast as by a
   generic encoder; a test compares the two. Addresses are formatted once for many events.
4. A line is shorter than PIPE_BUF (4,096 bytes), because the kernel does not interleave such writes of
   several processes to a pipe (pipe(7)). So a record has the first MAX_MESSAGE_BYTES of a message, and its
   length.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from typing import Any, Final

from bothends.endpoints import Address, Endpoint
from bothends.escaping import escape, escape_text
from bothends.events import (
    Accepted,
    AcceptPaused,
    AcceptResumed,
    ChildExited,
    Closed,
    CloseReason,
    Connected,
    ConnectFailed,
    ConnectionRejected,
    DatagramDropped,
    Draining,
    Event,
    HandshakeCompleted,
    LineField,
    LineFormat,
    Listening,
    PeerEof,
    RateLimited,
    Received,
    Reloaded,
    ReloadFailed,
    Sent,
    ServiceFailed,
    Stopped,
    WriteShutdown,
)
from bothends.log.text import LineStream, raised_at
from bothends.log.throttle import Repeated

VERSION: Final = 1

# Names in the log. Readers depend on them, so they stay when a class is renamed.
EVENT_NAMES: Final[dict[type[Event], str]] = {
    Listening: "listening",
    Accepted: "opened",
    Connected: "connected",
    ConnectFailed: "unconnected",
    HandshakeCompleted: "established",
    Received: "received",
    Sent: "sent",
    PeerEof: "ended",
    WriteShutdown: "finished",
    Closed: "closed",
    ServiceFailed: "failed",
    RateLimited: "slowed",
    ConnectionRejected: "refused",
    DatagramDropped: "dropped",
    AcceptPaused: "strained",
    AcceptResumed: "relieved",
    Draining: "draining",
    Reloaded: "reloaded",
    ReloadFailed: "not_reloaded",
    ChildExited: "exited",
    Stopped: "stopped",
    Repeated: "repeated",
}

MAX_MESSAGE_BYTES: Final = 384
"""Bytes of a message in a record. Escaping and quoting need up to five characters a byte, `hex` two more."""

# Maximum size of any other text (a reason, an exception's message, a path), in bytes of JSON.
_MAX_TEXT: Final = 800

_MESSAGES: Final = frozenset({Received, Sent})
_ACTIVITY: Final = frozenset({Listening, Accepted, HandshakeCompleted, PeerEof, Closed, Stopped})


class JsonLog:
    """An observer that writes events as JSON.

    Args:
        stream: where to write.
        quiet: log problems only, without messages, connects and closes.
        messages: log messages even if quiet.
        dump: add the bytes in hexadecimal, as `hex`.
        name: the server's name, if there are several; added to each record as `server`.
    """

    def __init__(
        self,
        stream: LineStream,
        *,
        quiet: bool = False,
        messages: bool = False,
        dump: bool = False,
        name: str = "",
    ) -> None:
        self._stream = stream
        self._excluded: frozenset[type[Event]] = frozenset()
        if quiet:
            self._excluded = _ACTIVITY if messages else _ACTIVITY | _MESSAGES
        self._dump = dump
        self._name = {"server": name} if name else {}
        self._server = f'"server":{json.dumps(name)},' if name else ""

    def __call__(self, event: Event) -> None:
        """Write one event."""
        if type(event) in self._excluded:
            return
        format_fields = _HAND_FORMATTED.get(type(event))
        if format_fields is not None and not self._dump:
            line = f'{{"v":{VERSION},"at":{event.at},{self._server}{format_fields(event)}}}\n'
        else:
            record = {"v": VERSION, "at": event.at, **self._name, **self._fields(event)}
            line = json.dumps(record, separators=(",", ":")) + "\n"
        self._write(line)

    def line_format(self) -> LineFormat | None:
        """Return the form of the lines of connections and messages; None if the bytes are in them, too."""
        if self._dump:
            return None
        field = LineField
        head = f'{{"v":{VERSION},"at":'.encode() + field.TIME + f",{self._server}".encode()

        def template(event: type[Event], fields: bytes) -> bytes:
            if event in self._excluded:
                return b""
            name = f'"event":"{event_name(event)}","connection":'.encode()
            return head + name + field.CONNECTION + b',"peer":' + field.PEER + fields + b"}\n"

        text = b',"length":' + field.LENGTH + b',"text":"' + field.TEXT + b'"'
        counts = b'","received":' + field.RECEIVED + b',"sent":' + field.SENT
        return LineFormat(
            write=self._write_lines,
            address=lambda address, _number: _address_json(address).encode(),
            inet=b'{"family":"inet","host":"' + field.TEXT + b'","port":' + field.LENGTH + b"}",
            opened=template(Accepted, b',"local":' + field.LOCAL),
            received=template(Received, text),
            sent=template(Sent, text),
            ended=template(PeerEof, b""),
            closed={
                cause: template(Closed, f',"cause":"{cause.name.lower()}'.encode() + counts)
                for cause in CloseReason
            },
            is_json=True,
            limit=MAX_MESSAGE_BYTES,
            message_stream=0,
            activity_stream=0,
            line_by_line=self._stream.isatty(),
        )

    def _write_lines(self, _stream: int, lines: bytes) -> None:
        self._write(lines.decode())

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # EPIPE or ENOSPC: a broken log must not stop the server

    def _fields(self, event: Event) -> dict[str, Any]:
        found: dict[str, Any] = {"event": event_name(type(event))}
        for field in dataclasses.fields(event):
            value = getattr(event, field.name)
            if isinstance(value, bytes):
                found["length"] = len(value)
                found["text"] = escape(value[:MAX_MESSAGE_BYTES])
                if self._dump:
                    found["hex"] = value[:MAX_MESSAGE_BYTES].hex()
            elif field.name != "at":
                found[field.name] = self._to_json(value)
        return found

    def _to_json(self, value: object) -> object:
        if isinstance(value, Address):
            return _address_fields(value)
        if isinstance(value, Endpoint):
            return str(value)
        if isinstance(value, CloseReason):
            return value.name.lower()
        if isinstance(value, str):
            return _truncate(value)
        if isinstance(value, BaseException):
            kind, where = type(value).__name__, raised_at(value)
            return {"type": kind, "text": _truncate(str(value)), "raised": _truncate(where)}
        if isinstance(value, Event):  # Repeated.like
            return self._fields(value)
        return value


def _address_fields(address: Address) -> dict[str, object]:
    return {"family": address.family, "host": _truncate(address.host), "port": address.port}


@functools.lru_cache(maxsize=1024)
def _address_json(address: Address) -> str:
    return json.dumps(_address_fields(address), separators=(",", ":"))


def _text_json(data: bytes) -> str:
    text = escape(data[:MAX_MESSAGE_BYTES])
    return json.dumps(text) if '"' in text or "\\" in text or not text.isascii() else f'"{text}"'


def _format_accepted(event: Accepted) -> str:
    peer, local = _address_json(event.peer), _address_json(event.local)
    return f'"event":"opened","connection":{event.connection},"peer":{peer},"local":{local}'


def _format_message(event: Received | Sent) -> str:
    name = "received" if type(event) is Received else "sent"
    head = f'"event":"{name}","connection":{event.connection},"peer":{_address_json(event.peer)}'
    return f'{head},"length":{len(event.data)},"text":{_text_json(event.data)}'


def _format_closed(event: Closed) -> str:
    head = f'"event":"closed","connection":{event.connection},"peer":{_address_json(event.peer)}'
    cause = event.cause.name.lower()
    return f'{head},"cause":"{cause}","received":{event.received},"sent":{event.sent}'


_HAND_FORMATTED: Final[dict[type[Event], Callable[[Any], str]]] = {
    Accepted: _format_accepted,
    Received: _format_message,
    Sent: _format_message,
    Closed: _format_closed,
}


def missing_record(count: int, reason: str) -> str:
    """Return the line that says in a JSON log that records are missing there."""
    record = {"v": VERSION, "at": time.time_ns(), "event": "missing", "count": count, "reason": reason}
    return json.dumps(record, separators=(",", ":")) + "\n"


def event_name(event: type[Event]) -> str:
    """Return the name of an event class in the log, from `EVENT_NAMES`."""
    return EVENT_NAMES[event]


def _truncate(text: str) -> str:
    text = shown = escape_text(text)
    while (size := len(json.dumps(shown))) > _MAX_TEXT:
        shown = shown[: min(len(shown) - 1, len(shown) * _MAX_TEXT // size)]
    return shown if shown == text else f"{shown}..."
