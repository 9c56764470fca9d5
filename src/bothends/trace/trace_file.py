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

from bothends.errors import CallerError
from bothends.escaping import escape_text
from bothends.trace.findings import Finding
from bothends.trace.model import (
    SPARE,
    Call,
    Change,
    Event,
    Link,
    Message,
    Moment,
    Packet,
    Place,
    Process,
    Socket,
    Trace,
    keep_newest,
)

VERSION: Final = 1
LONGEST: Final = 16 << 20  # characters of a line: more is no trace

_KINDS: Final[dict[str, type[Any]]] = {
    "process": Process,
    "socket": Socket,
    "call": Call,
    "packet": Packet,
    "change": Change,
}
_LATER: Final[dict[type[Any], tuple[str, ...]]] = {
    Call: ("until", "result", "error", "size", "made"),
    Packet: ("until", "lost"),
}
_FIELDS: Final = {
    kind: [(each.name, each.default) for each in dataclasses.fields(kind)] for kind in _KINDS.values()
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}

T = TypeVar("T")


@dataclasses.dataclass(eq=False, repr=False)
class TraceFileError(CallerError):
    """A file that is no trace, or one of another version. Fields: `file`, `line`, `reason`."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{escape_text(self.file)}, line {self.line}: {self.reason}"


def as_object(value: Process | Socket | Event) -> dict[str, Any]:
    """A value for JSON, without what stands at its default."""
    found = {}
    for name, default in _FIELDS[type(value)]:
        item = getattr(value, name)
        if item != default:
            found[name] = _encoded(item)
    return found


def _encoded(item: Any) -> Any:
    match item:
        case bytes():
            return base64.b64encode(item).decode("ascii")
        case frozenset():
            return sorted(item)
        case tuple():
            return [_encoded(each) for each in item]
        case _:
            return item


class Writer:
    """Writes a trace, line by line, as it is told.

    Args:
        file: gets the lines.
        trace: whose processes and sockets the moments speak of.
    """

    def __init__(self, file: TextIO, trace: Trace) -> None:
        self._file = file
        self._trace = trace
        self._written: dict[tuple[str, int], str] = {}
        self._write({"bothends-trace": VERSION})

    def tell(self, moment: Moment) -> None:
        """Write a moment, and before it what it speaks of, where that is new."""
        event = moment.event
        match event:
            case Packet():
                self._mention("socket", event.sender, event.receiver)
            case Call():
                self._mention("process", event.process)
                self._mention("socket", event.socket, *event.sockets, event.made)
            case _:
                self._mention("process", event.process)
        value = as_object(event)
        if not moment.is_end:
            # What it came to is told when it has.
            for name in _LATER.get(type(event), ()):
                value.pop(name, None)
        causes = self._trace.causes_of(event.number)
        if causes and (moment.is_end or not isinstance(event, Call)):
            value["causes"] = [[link.cause, link.kind] for link in causes]
        self._write({_NAMES[type(event)]: value})

    def note(self, text: str) -> None:
        """Write what a user should know of the run."""
        self._write({"note": text})

    def findings(self, found: Iterable[Finding]) -> None:
        """Write what the rules found. Who reads the trace again finds it again."""
        for finding in found:
            self._write({"finding": dataclasses.asdict(finding)})
        self.flush()

    def flush(self) -> None:
        """Let what was written be in the file."""
        self._file.flush()

    def _mention(self, kind: str, *numbers: int | None) -> None:
        known: dict[int, Any] = self._trace.processes if kind == "process" else self._trace.sockets
        for number in numbers:
            if number is not None and number in known:
                line = json.dumps({kind: as_object(known[number])})
                if self._written.get((kind, number)) != line:
                    keep_newest(self._written, SPARE)  # what was dropped is written once more
                    self._written[kind, number] = line
                    self._file.write(line + "\n")

    def _write(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value) + "\n")


def read(lines: Iterable[str], file: str, tell: Callable[[Moment], None], trace: Trace) -> None:
    """Read a trace. `tell` is called for each moment, in order, after `trace` has got it.

    Raises:
        TraceFileError: it is none. (One that ends within a line is read up to there.)
    """
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            moment = _take(trace, line, first=number == 1)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if number > 1 and not line.endswith("\n"):
                trace.notes.append("the trace ends within a line: whoever wrote it was interrupted")
                break
            raise TraceFileError(file, number, f"not what a trace holds ({_reason(error)})") from error
        if moment is not None:
            trace.add(moment)
            tell(moment)
            if trace.is_crowded:
                trace.forget()
    if not number:
        raise TraceFileError(file, 1, "it is empty")


def _reason(error: Exception) -> str:
    return escape_text(str(error))[:120] or type(error).__name__


def _take(trace: Trace, line: str, *, first: bool) -> Moment | None:
    if len(line) > LONGEST:
        raise ValueError(f"longer than {LONGEST} characters")
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
    item = _decoded(_KINDS[kind], inner)
    match item:
        case Process():
            trace.processes[item.number] = item
            return None
        case Socket():
            trace.sockets[item.number] = item
            return None
    for cause, how in causes:
        trace.link(Link(int(cause), item.number, how))
    known = trace.event(item.number)
    if known is None or isinstance(item, Change) or type(known) is not type(item):
        return Moment(item)
    for field in dataclasses.fields(item):  # the same one, ended: whoever holds it sees it so
        setattr(known, field.name, getattr(item, field.name))
    return Moment(known, is_end=True)


def _decoded(kind: type[T], inner: dict[str, Any]) -> T:
    hints, values = _hints(kind), {}
    for name, item in inner.items():
        values[name] = _value(hints[name], item)
    return kind(**values)


_HINTS: Final[dict[type[Any], dict[str, str]]] = {}


def _hints(kind: type[Any]) -> dict[str, str]:
    if kind not in _HINTS:
        _HINTS[kind] = {name: str(hint) for name, hint in get_type_hints(kind).items()}
    return _HINTS[kind]


def _value(hint: str, item: Any) -> Any:
    """An item, as the type of its field wants it. Raises ValueError or TypeError."""
    if "Message" in hint:
        return tuple(Message(int(size), _bytes(data), _place(place)) for size, data, place in item)
    if "Place" in hint:
        return _place(item)
    if hint == "<class 'bytes'>":
        return _bytes(item)
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


def _place(item: Any) -> Place | None:
    if item is None:
        return None
    host, port = item
    return Place(str(host), None if port is None else int(port))


def _bytes(item: Any) -> bytes:
    try:
        return base64.b64decode(item, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
