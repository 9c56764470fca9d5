"""A trace as a file, and as JSON for other programs: lines of JSON, the first of which says the version.

    {"bothends-trace": 1}
    {"process": {"number": 1, "pid": 4711, "role": "server"}}
    {"socket": {"number": 1, "family": "inet", "kind": "stream", "local": ["127.0.0.1", 12000]}}
    {"call": {"number": 1, "process": 1, "name": "listen", "at": 1795255220984099699, ...}}
    {"packet": {"number": 7, "source": ["127.0.0.1", 40000], ..., "causes": [[6, "carries"]]}}

1. Lines stand in the order of the time-line. A call has two: when it begins, and (with "until") when it ends.
   So has a packet on a wire: when it leaves, and when it arrives or is lost.
2. A line repeats what it changes: a later line on the same process, socket or call takes the place of an
   earlier one. What stands at its default is left out.
3. Times are nanoseconds since 1970. Data are base64, addresses [host, port]. "causes" are the numbers of the
   events that this one came of, and how.
4. A run may be saved while it lasts: what stands in the file is whole up to its last line.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any, Final, TextIO, TypeVar, get_type_hints

from bothends.errors import UsageError
from bothends.escaping import escape_text
from bothends.trace.findings import Finding
from bothends.trace.model import (
    PRUNE_SLACK,
    Call,
    CausalLink,
    Message,
    Packet,
    Point,
    ProcessEvent,
    Socket,
    SocketAddress,
    Trace,
    TracedProcess,
    TraceEvent,
    trim_oldest,
)

VERSION: Final = 1
MAX_LINE: Final = 16 << 20  # characters of a line: more is no trace

_KINDS: Final[dict[str, type[Any]]] = {
    "process": TracedProcess,
    "socket": Socket,
    "call": Call,
    "packet": Packet,
    "change": ProcessEvent,
}
_END_FIELDS: Final[dict[type[Any], tuple[str, ...]]] = {
    Call: ("until", "result", "error", "size", "made"),
    Packet: ("until", "lost"),
}
_FIELDS: Final = {
    kind: [(each.name, each.default) for each in dataclasses.fields(kind)] for kind in _KINDS.values()
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}

T = TypeVar("T")


@dataclasses.dataclass(eq=False, repr=False)
class TraceFileError(UsageError):
    """A file that is no trace, or one of another version. Fields: `file`, `line`, `reason`."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{escape_text(self.file)}, line {self.line}: {self.reason}"


def to_json_object(value: TracedProcess | Socket | TraceEvent) -> dict[str, Any]:
    """A value for JSON, without what stands at its default."""
    found = {}
    for name, default in _FIELDS[type(value)]:
        item = getattr(value, name)
        if item != default:
            found[name] = _encode(item)
    return found


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


class TraceFileWriter:
    """Writes a trace, line by line, as it is told.

    Args:
        file: gets the lines.
        trace: whose processes and sockets the moments speak of.
    """

    def __init__(self, file: TextIO, trace: Trace) -> None:
        self._file = file
        self._trace = trace
        self._written: dict[tuple[str, int], str] = {}
        self._write_line({"bothends-trace": VERSION})

    def write(self, point: Point) -> None:
        """Write a moment, and before it what it speaks of, where that is new."""
        event = point.event
        match event:
            case Packet():
                self._write_if_changed("socket", event.sender, event.receiver)
            case Call():
                self._write_if_changed("process", event.process)
                self._write_if_changed("socket", event.socket, *event.sockets, event.made)
            case _:
                self._write_if_changed("process", event.process)
        value = to_json_object(event)
        if not point.is_end:
            # What it came to is told when it has.
            for name in _END_FIELDS.get(type(event), ()):
                value.pop(name, None)
        causes = self._trace.causes_of(event.number)
        if causes and (point.is_end or not isinstance(event, Call)):
            value["causes"] = [[link.cause, link.kind] for link in causes]
        self._write_line({_NAMES[type(event)]: value})

    def write_note(self, text: str) -> None:
        """Write what a user should know of the run."""
        self._write_line({"note": text})

    def write_findings(self, found: Iterable[Finding]) -> None:
        """Write what the rules found. Who reads the trace again finds it again."""
        for finding in found:
            self._write_line({"finding": dataclasses.asdict(finding)})
        self.flush()

    def flush(self) -> None:
        """Let what was written be in the file."""
        self._file.flush()

    def _write_if_changed(self, kind: str, *numbers: int | None) -> None:
        known: dict[int, Any] = self._trace.processes if kind == "process" else self._trace.sockets
        for number in numbers:
            if number is not None and number in known:
                line = json.dumps({kind: to_json_object(known[number])})
                if self._written.get((kind, number)) != line:
                    trim_oldest(self._written, PRUNE_SLACK)  # what was dropped is written once more
                    self._written[kind, number] = line
                    self._file.write(line + "\n")

    def _write_line(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value) + "\n")


def read(lines: Iterable[str], file: str, on_point: Callable[[Point], None], trace: Trace) -> None:
    """Read a trace. `tell` is called for each moment, in order, after `trace` has got it.

    Raises:
        TraceFileError: it is none. (One that ends within a line is read up to there.)
    """
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            moment = _read_line(trace, line, first=number == 1)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if number > 1 and not line.endswith("\n"):
                trace.notes.append("the trace ends within a line: whoever wrote it was interrupted")
                break
            raise TraceFileError(file, number, f"not what a trace holds ({_reason(error)})") from error
        if moment is not None:
            trace.add(moment)
            on_point(moment)
            if trace.needs_pruning:
                trace.prune()
    if not number:
        raise TraceFileError(file, 1, "it is empty")


def _reason(error: Exception) -> str:
    return escape_text(str(error))[:120] or type(error).__name__


def _read_line(trace: Trace, line: str, *, first: bool) -> Point | None:
    if len(line) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE} characters")
    value = json.loads(line)
    if first:
        if not isinstance(value, dict) or "bothends-trace" not in value:
            raise ValueError("the first line doesn't say that it is one")
        if value["bothends-trace"] != VERSION:
            raise ValueError(f"version {value['bothends-trace']!r}, and this program reads version {VERSION}")
        return None
    ((kind, inner),) = value.items()
    if kind == "note":
        trace.notes.append(escape_text(str(inner)))
        return None
    if kind == "finding":
        return None
    causes = inner.pop("causes", ())
    item = _decode(_KINDS[kind], inner)
    match item:
        case TracedProcess():
            trace.processes[item.number] = item
            return None
        case Socket():
            trace.sockets[item.number] = item
            return None
    for cause, how in causes:
        trace.link(CausalLink(int(cause), item.number, how))
    known = trace.event(item.number)
    if known is None or isinstance(item, ProcessEvent) or type(known) is not type(item):
        return Point(item)
    for field in dataclasses.fields(item):  # the same one, ended: whoever holds it sees it so
        setattr(known, field.name, getattr(item, field.name))
    return Point(known, is_end=True)


def _decode(kind: type[T], inner: dict[str, Any]) -> T:
    hints, values = _hints(kind), {}
    for name, item in inner.items():
        values[name] = _decode_value(hints[name], item)
    return kind(**values)


_HINTS: Final[dict[type[Any], dict[str, str]]] = {}


def _hints(kind: type[Any]) -> dict[str, str]:
    if kind not in _HINTS:
        _HINTS[kind] = {name: str(hint) for name, hint in get_type_hints(kind).items()}
    return _HINTS[kind]


def _decode_value(hint: str, item: Any) -> Any:
    """An item, as the type of its field wants it. Raises ValueError or TypeError."""
    if "Message" in hint:
        return tuple(
            Message(int(size), _decode_bytes(data), _decode_address(place)) for size, data, place in item
        )
    if "Place" in hint:
        return _decode_address(item)
    if hint == "<class 'bytes'>":
        return _decode_bytes(item)
    if "frozenset" in hint:
        return frozenset(map(str, item))
    if hint.startswith("tuple[int"):
        return tuple(map(int, item))
    if hint.startswith("tuple"):
        return tuple(escape_text(str(each)) if not str(each).isprintable() else str(each) for each in item)
    wanted = bool if "bool" in hint else int if "int" in hint else str
    if item is not None and not isinstance(item, wanted):
        raise TypeError(f"{item!r:.40} instead of {wanted.__name__}")
    return item


def _decode_address(item: Any) -> SocketAddress | None:
    if item is None:
        return None
    host, port = item
    return SocketAddress(str(host), None if port is None else int(port))


def _decode_bytes(item: Any) -> bytes:
    try:
        return base64.b64decode(item, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
