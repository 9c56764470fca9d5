"""The file format of a trace, also used as JSON for other programs: one JSON object a line.

    {"bothends-trace": 1}
    {"process": {"number": 1, "pid": 4711, "role": "server"}}
    {"socket": {"number": 1, "family": "inet", "kind": "stream", "local": ["127.0.0.1", 12000]}}
    {"call": {"number": 1, "process": 1, "name": "listen", "at": 1795255220984099699, ...}}
    {"packet": {"number": 7, "source": ["127.0.0.1", 40000], ..., "causes": [[6, "carries"]]}}

1. The first line holds the version.
2. Lines are in timeline order. A call has two lines: its start and, with "until", its end. So has a packet on
   a wire: it is sent, and it arrives or is lost.
3. A later line about the same process, socket or call replaces the earlier one. Attributes at their default
   are left out.
4. Times are nanoseconds since 1970, data is base64, addresses are [host, port]. "causes" are pairs: the
   number of the event that caused this one, and the relation.
5. A file can be read while a run still writes it: it is valid up to its last complete line.
6. The keys are the format, which docs/reference/trace-file.md describes. `_FIELDS` maps attributes to keys,
   so that renaming an attribute does not change the format.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol, get_args

from bothends.errors import UsageError
from bothends.escaping import escape_text
from bothends.trace.findings import Finding
from bothends.trace.model import (
    MAX_THREAD_EXITS,
    PRUNE_SLACK,
    Call,
    CausalLink,
    DescriptorChange,
    KernelEvent,
    KernelEventKind,
    Message,
    Packet,
    Point,
    ProcessEvent,
    ProcessEventKind,
    Socket,
    SocketAddress,
    SocketFamily,
    SocketKind,
    Trace,
    TracedProcess,
    TraceEvent,
    trim_oldest,
)

VERSION: Final = 1
FIRST_LINE: Final = json.dumps({"bothends-trace": VERSION}) + "\n"
_MAX_INTEGER: Final = 1 << 64
MAX_LINE: Final = 16 << 20  # characters of a line: longer ones are not from a trace


@dataclasses.dataclass(eq=False, repr=False)
class TraceFileError(UsageError):
    """The file is not a trace, or has another version. Fields: `file`, `line`, `reason`.

    `unit` is what `line` counts: the lines, or the blocks of a compact file.
    """

    file: str
    line: int
    reason: str
    unit: str = "line"

    def __str__(self) -> str:
        return f"{escape_text(self.file)}, {self.unit} {self.line}: {self.reason}"


# Values ------------------------------------------------------------------------------------------


def _encode(item: Any) -> Any:
    match item:
        case bytes():
            return base64.b64encode(item).decode("ascii")
        case frozenset():
            return sorted(item)
        case tuple():
            return [_encode(each) for each in item]
        case _:
            return item


# Decoders raise ValueError or TypeError.


def _integer(item: Any) -> Any:
    number = _checked(item, int)
    if number is not None and not -_MAX_INTEGER < number < _MAX_INTEGER:
        raise ValueError(f"a number of more than 64 bits: {number!s:.24}...")
    return number


def _boolean(item: Any) -> Any:
    return _checked(item, bool)


def _text(item: Any) -> Any:
    text = _checked(item, str)
    return text if text is None or text.isprintable() else escape_text(text)


def _checked(item: Any, expected: type[Any]) -> Any:
    if item is not None and not isinstance(item, expected):
        raise TypeError(f"{item!r:.40} instead of {expected.__name__}")
    return item


def _one_of(*allowed: str) -> Callable[[Any], Any]:
    def decode(item: Any) -> Any:
        if item not in allowed:
            raise ValueError(f"{item!r:.40} instead of one of {', '.join(allowed)}")
        return item

    return decode


def _integers(item: Any) -> tuple[int, ...]:
    return tuple(_integer(each) if each is not None else 0 for each in item)


def _texts(item: Any) -> tuple[str, ...]:
    return tuple(_text(str(each)) for each in item)


def _text_set(item: Any) -> frozenset[str]:
    return frozenset(_texts(item))


def _bytes(item: Any) -> bytes:
    try:
        return base64.b64decode(item, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _address(item: Any) -> SocketAddress | None:
    if item is None:
        return None
    host, port = item
    return SocketAddress(_text(host) or "", _integer(port))


def _messages(item: Any) -> tuple[Message, ...]:
    return tuple(
        Message(_integer(size) or 0, _bytes(data), _address(address)) for size, data, address in item
    )


class _Field(NamedTuple):
    """An attribute in the file."""

    key: str
    decode: Callable[[Any], Any]


# The key of each kind of line.
_KINDS: Final[dict[str, type[Any]]] = {
    "process": TracedProcess,
    "socket": Socket,
    "call": Call,
    "packet": Packet,
    "change": ProcessEvent,
    "kernel": KernelEvent,
}
# The key and the decoder of each attribute.
_FIELDS: Final[dict[type[Any], dict[str, _Field]]] = {
    TracedProcess: {
        "number": _Field("number", _integer),
        "pid": _Field("pid", _integer),
        "role": _Field("role", _text),
        "command": _Field("command", _text),
        "parent": _Field("parent", _integer),
        "began": _Field("began", _integer),
        "status": _Field("status", _integer),
        "uses_io_uring": _Field("uses_io_uring", _boolean),
        "ignores_children": _Field("ignores_children", _boolean),
        "ended": _Field("ended", _integer),
        "namespace": _Field("namespace", _text),
    },
    Socket: {
        "number": _Field("number", _integer),
        "family": _Field("family", _one_of(*get_args(SocketFamily))),
        "kind": _Field("kind", _one_of(*get_args(SocketKind))),
        "inode": _Field("inode", _integer),
        "local": _Field("local", _address),
        "peer": _Field("peer", _address),
        "is_listener": _Field("is_listener", _boolean),
        "accepted_from": _Field("welcomed_by", _integer),
        "peer_inode": _Field("peer_inode", _integer),
        "blocks": _Field("blocks", _boolean),
        "process": _Field("process", _integer),
        "is_wrapped": _Field("is_wrapped", _boolean),
        "asks_name_service": _Field("asks_name_service", _boolean),
    },
    Call: {
        "number": _Field("number", _integer),
        "process": _Field("process", _integer),
        "thread": _Field("thread", _integer),
        "name": _Field("name", _text),
        "at": _Field("at", _integer),
        "until": _Field("until", _integer),
        "arguments": _Field("arguments", _texts),
        "result": _Field("result", _integer),
        "error": _Field("error", _text),
        "descriptor": _Field("descriptor", _integer),
        "socket": _Field("socket", _integer),
        "sockets": _Field("sockets", _integers),
        "requested": _Field("asked", _integer),
        "size": _Field("size", _integer),
        "data": _Field("data", _bytes),
        "messages": _Field("messages", _messages),
        "address": _Field("place", _address),
        "created_id": _Field("made", _integer),
        "flags": _Field("flags", _text_set),
        "wanted_events": _Field("wanted_events", _texts),
        "descriptors_waited": _Field("descriptors_waited", _integers),
        "ready": _Field("ready", _integers),
        "ready_events": _Field("ready_events", _texts),
        "timeout_ns": _Field("timeout_ns", _integer),
    },
    Packet: {
        "number": _Field("number", _integer),
        "at": _Field("at", _integer),
        "protocol": _Field("protocol", _text),
        "source": _Field("source", _address),
        "destination": _Field("destination", _address),
        "size": _Field("size", _integer),
        "data": _Field("data", _bytes),
        "flags": _Field("flags", _texts),
        "sequence": _Field("sequence", _integer),
        "acknowledged": _Field("acknowledged", _integer),
        "window": _Field("window", _integer),
        "offset": _Field("offset", _integer),
        "acks": _Field("acks", _integer),
        "resent": _Field("resent", _boolean),
        "repeats": _Field("repeats", _integer),
        "sender": _Field("sender", _integer),
        "receiver": _Field("receiver", _integer),
        "interface": _Field("interface", _text),
        "raw": _Field("raw", _bytes),
        "length": _Field("length", _integer),
        "reaches": _Field("reaches", _text),
        "until": _Field("until", _integer),
        "lost": _Field("lost", _text),
        "synthesized": _Field("made", _boolean),
    },
    ProcessEvent: {
        "number": _Field("number", _integer),
        "at": _Field("at", _integer),
        "process": _Field("process", _integer),
        "kind": _Field("kind", _one_of(*get_args(ProcessEventKind))),
        "text": _Field("text", _text),
        "status": _Field("status", _integer),
        "thread": _Field("thread", _integer),
    },
    KernelEvent: {
        "number": _Field("number", _integer),
        "at": _Field("at", _integer),
        "kind": _Field("kind", _one_of(*get_args(KernelEventKind))),
        "reason": _Field("reason", _text),
        "protocol": _Field("protocol", _one_of("", "tcp", "udp")),
        "source": _Field("source", _address),
        "destination": _Field("destination", _address),
        "socket": _Field("socket", _integer),
        "packet": _Field("packet", _integer),
        "thread": _Field("thread", _integer),
    },
}
# Attributes that are known at the end of an event only: the line of its start leaves them out.
_END_ATTRIBUTES: Final[dict[type[Any], tuple[str, ...]]] = {
    Call: ("until", "result", "error", "size", "created_id", "ready", "ready_events"),
    Packet: ("until", "lost"),
}
_KIND_OF: Final = {kind: key for key, kind in _KINDS.items()}
_DEFAULTS: Final = {
    kind: {each.name: each.default for each in dataclasses.fields(kind)} for kind in _KINDS.values()
}
_ATTRIBUTES: Final = {
    kind: {field.key: (name, field.decode) for name, field in fields.items()}
    for kind, fields in _FIELDS.items()
}


def to_json_object(value: TracedProcess | Socket | TraceEvent) -> dict[str, Any]:
    """Return a value as a JSON object, without the attributes that are at their default."""
    defaults = _DEFAULTS[type(value)]
    found = {}
    for name, field in _FIELDS[type(value)].items():
        item = getattr(value, name)
        if item != defaults[name]:
            found[field.key] = _encode(item)
    return found


def decode_attribute(kind: type[Any], name: str, item: Any) -> Any:
    """Return the value of an attribute, by its name in the model. Raises ValueError, TypeError."""
    return _FIELDS[kind][name].decode(item)


def from_json_object(kind: type[Any], value: dict[str, Any]) -> Any:
    """Return a value from its JSON object. Raises ValueError, TypeError, KeyError."""
    attributes = {}
    for key, item in value.items():
        name, decode = _ATTRIBUTES[kind][key]
        attributes[name] = decode(item)
        if attributes[name] is None and _DEFAULTS[kind][name] is not None:
            raise ValueError(f"{key} is null")
    return kind(**attributes)


# Writing -----------------------------------------------------------------------------------------


class LineFile(Protocol):
    """Where a trace is written: a text stream, or an `ObserverFile`."""

    def write(self, text: str, /) -> object:
        """Write whole lines."""

    def flush(self) -> None:
        """Pass buffered lines on."""


class TraceFileWriter:
    """Writes a trace line by line, during the run.

    Args:
        file: where to write. If `write` returns False, as `ObserverFile` does on a full disk, the lines are
            missing; processes and sockets are then written with the next point that refers to them.
        trace: holds the processes and sockets that the points refer to.
        is_begun: whether the file has its first line already.
    """

    def __init__(self, file: LineFile, trace: Trace, *, is_begun: bool = False) -> None:
        self._file = file
        self._trace = trace
        self._written: dict[tuple[str, int], str] = {}
        self._new: dict[tuple[str, int], str] = {}  # lines that go before the next one, with it
        if not is_begun:
            self._file.write(FIRST_LINE)

    def write(self, point: Point) -> None:
        """Write a point, after the processes and sockets it refers to if they are new or have changed."""
        value = self.value_of(point)
        self._write_line(value)

    def value_of(self, point: Point) -> dict[str, Any]:
        """Return the line of a point, and note what of its processes and sockets is new or has changed."""
        event = point.event
        match event:
            case Packet():
                self._write_if_changed("socket", event.sender, event.receiver)
            case KernelEvent():
                self._write_if_changed("socket", event.socket)
            case Call():
                self._write_if_changed("process", event.process)
                self._write_if_changed("socket", event.socket, *event.sockets, event.created_id)
            case _:
                self._write_if_changed("process", event.process)
        value = to_json_object(event)
        if not point.is_end:
            for name in _END_ATTRIBUTES.get(type(event), ()):
                value.pop(_FIELDS[type(event)][name].key, None)
        causes = self._trace.causes_of(event.number)
        if causes and (point.is_end or not isinstance(event, Call)):
            value["causes"] = [[link.cause, link.kind] for link in causes]
        return {_KIND_OF[type(event)]: value}

    def write_end(self) -> None:
        """Write what is known at the end of a run: the holders of each socket, and the blocked calls."""
        for change in self._trace.descriptor_changes():
            self._write_line({"descriptor": change._asdict()})
        unfinished = [
            event for event in self._trace.events() if isinstance(event, Call) and event.until is None
        ]
        for call in (*unfinished, *self._trace.blocked):
            self._write_if_changed("process", call.process)
            self._write_if_changed("socket", call.socket, *call.sockets, *call.ready)
            self._write_line({"blocked": to_json_object(call)})
        for thread, at in self._trace.thread_exits.items():
            self._write_line({"thread_exit": [thread, at]})
        if self._trace.counters:
            self._write_line({"counters": self._trace.counters})
        for seen, original in self._trace.translations.items():
            self._write_line({"translation": [_encode(each) for each in (*seen, *original)]})
        if self._trace.tls_secrets:
            self._write_line({"tls_secrets": self._trace.tls_secrets})
        if self._trace.frozen_at is not None:
            self._write_line({"frozen_at": self._trace.frozen_at})
        if self._trace.ended_by:
            self._write_line({"ended_by": self._trace.ended_by})

    def write_note(self, text: str) -> None:
        """Write a message for the user."""
        self._write_line({"note": text})

    def write_waits(self, texts: Iterable[str]) -> None:
        """Write what the blocked calls wait for, for other programs: `read` skips it."""
        for text in texts:
            self._write_line({"waits": text})

    def write_findings(self, found: Iterable[Finding]) -> None:
        """Write findings, for other programs: `read` skips them, because the rules can be run again."""
        for finding in found:
            self._write_line({"finding": dataclasses.asdict(finding)})
        self.flush()

    def flush(self) -> None:
        """Flush the file's buffer."""
        self._file.flush()

    def _write_if_changed(self, kind: str, *numbers: int | None) -> None:
        known: dict[int, Any] = self._trace.processes if kind == "process" else self._trace.sockets
        for number in numbers:
            if number is not None and number in known:
                line = json.dumps({kind: to_json_object(known[number])})
                if self._written.get((kind, number)) != line:
                    self._new[kind, number] = line

    def _write_line(self, value: dict[str, Any]) -> None:
        lines = [*self._new.values(), json.dumps(value), ""]
        if self._file.write("\n".join(lines)) is not False:
            for key, line in self._new.items():
                trim_oldest(self._written, PRUNE_SLACK)  # entries removed here are written once more
                self._written[key] = line
        self._new.clear()


def missing_note(count: int, reason: str) -> str:
    """Return the line that says in a trace file that events are missing there."""
    return (
        json.dumps({"note": f"{count:,} {'event is' if count == 1 else 'events are'} missing: {reason}"})
        + "\n"
    )


# Reading -----------------------------------------------------------------------------------------


class Period(NamedTuple):
    """The part of a trace to read, in nanoseconds since its first point."""

    begin: int = 0
    end: int = 1 << 63

    @staticmethod
    def from_seconds(begin: float | None, end: float | None) -> Period | None:
        """Return the period from `begin` to `end`, or None if both are None, for the whole trace.

        Raises:
            UsageError: `end` is before `begin`.
        """
        if begin is None and end is None:
            return None
        if begin is not None and end is not None and begin > end:
            raise UsageError("--from is later than --to")
        return Period(int((begin or 0) * 1e9), Period().end if end is None else int(end * 1e9))


def read(
    lines: Iterable[str],
    file: str,
    on_point: Callable[[Point], None],
    trace: Trace,
    period: Period | None = None,
) -> None:
    """Read a trace file, or a period of it, into `trace`. `on_point` is called for each point, once added.

    A file that ends within a line is read up to there, and `trace` gets a note.

    Raises:
        TraceFileError: the file is not a trace.
    """
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            point = _read_line(trace, line, first=number == 1)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            if number > 1 and not line.endswith("\n"):
                trace.notes.append("the trace ends within a line: its writer was interrupted")
                break
            raise TraceFileError(file, number, f"not part of a trace ({reason_of(error)})") from error
        if point is None:
            continue
        if trace.began_at is None:
            trace.began_at = point.at
        if period is not None and not period.begin <= point.at - trace.began_at <= period.end:
            continue
        trace.add(point)
        on_point(point)
        if trace.needs_pruning:
            trace.prune()
    if not number:
        raise TraceFileError(file, 1, "the file is empty")


def _descriptor_change(value: dict[str, Any]) -> DescriptorChange:
    at, socket, process, descriptor = (int(value[each]) for each in DescriptorChange._fields[:4])
    return DescriptorChange(at, socket, process, descriptor, bool(value["is_open"]))


def reason_of(error: Exception) -> str:
    """Return the message of an error, in one short line."""
    return escape_text(str(error))[:120] or type(error).__name__


def _read_line(trace: Trace, line: str, *, first: bool) -> Point | None:
    if len(line) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE} characters")
    value = json.loads(line)
    if first:
        if not isinstance(value, dict) or "bothends-trace" not in value:
            raise ValueError("the first line doesn't hold the version of a trace")
        if value["bothends-trace"] != VERSION:
            raise ValueError(f"version {value['bothends-trace']!r}; this program reads version {VERSION}")
        return None
    return _read_value(trace, value)


def read_line(trace: Trace, line: str) -> Point | None:
    """Read one line after the first: add what it says to a trace, and return its point, not yet added."""
    return _read_line(trace, line, first=False)


def points_of(trace: Trace, value: dict[str, Any], *, is_end: bool) -> Iterator[Point]:
    """Return the point of a line that is the start or the end of an event; the start, too, if it is unknown.

    Raises: ValueError, TypeError, KeyError.
    """
    point = _read_value(trace, value)
    if point is None:
        raise ValueError("no event")
    if is_end and not point.is_end:
        yield point
        point = Point(point.event, is_end=True)
    yield point


def _read_value(trace: Trace, value: dict[str, Any]) -> Point | None:
    ((kind, inner),) = value.items()
    if kind == "note":
        trace.notes.append(escape_text(str(inner)))
        return None
    if kind in ("finding", "waits"):
        return None
    if kind == "thread_exit":
        thread, at = inner
        trace.thread_exits[int(thread)] = int(at)
        trim_oldest(trace.thread_exits, MAX_THREAD_EXITS)
        return None
    if kind == "frozen_at":
        trace.frozen_at = int(inner)
        return None
    if kind == "ended_by":
        trace.ended_by = escape_text(str(inner))
        return None
    if kind == "counters":
        trace.counters |= {escape_text(str(name)): int(value) for name, value in inner.items()}
        return None
    if kind == "translation":
        first, second, third, fourth = (_address(each) or SocketAddress("") for each in inner)
        trace.translations[first, second] = third, fourth
        return None
    if kind == "tls_secrets":
        trace.tls_secrets += [escape_text(str(each)) for each in inner]
        return None
    if kind == "descriptor":
        trace.add_descriptor_change(_descriptor_change(inner))
        return None
    if kind == "blocked":
        call = from_json_object(Call, inner)
        check_references(trace, call)
        started = trace.event(call.number)
        if isinstance(started, Call):
            _update(started, call)  # arguments that were not known when it started
        else:
            trace.blocked.append(call)
        return None
    causes = inner.pop("causes", ())
    item = from_json_object(_KINDS[kind], inner)
    check_references(trace, item)
    match item:
        case TracedProcess():
            trace.processes[item.number] = item
            return None
        case Socket():
            trace.sockets[item.number] = item
            return None
    for cause, relation in causes:
        trace.link(CausalLink(int(cause), item.number, relation))
    known = trace.event(item.number)
    if known is None or isinstance(item, ProcessEvent | KernelEvent) or type(known) is not type(item):
        return Point(item)
    _update(known, item)
    return Point(known, is_end=True)


def check_references(trace: Trace, item: Any) -> None:
    """Check that a line refers to processes and sockets of earlier lines. Raises ValueError.

    In a long trace old ones are dropped: then a placeholder is good enough.
    """
    sockets: tuple[int | None, ...] = ()
    match item:
        case Call():
            sockets = (item.socket, *item.sockets, *item.ready)
        case Packet():
            sockets = (item.sender, item.receiver)
        case KernelEvent():
            sockets = (item.socket,)
    if isinstance(item, Call | ProcessEvent) and item.process not in trace.processes:
        if not trace.pruned:
            raise ValueError(f"process {item.process} is in no line before")
        trace.processes[item.process] = TracedProcess(item.process, 0, "")
    for number in sockets:
        if number is not None and number not in trace.sockets:
            if not trace.pruned:
                raise ValueError(f"socket {number} is in no line before")
            trace.sockets[number] = Socket(number, "other", "stream")


def _update(known: TraceEvent, item: TraceEvent) -> None:
    """Update an event in place, because the point of its start refers to it."""
    for field in dataclasses.fields(item):
        setattr(known, field.name, getattr(item, field.name))
