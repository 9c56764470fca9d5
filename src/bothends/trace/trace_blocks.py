"""The compact file format of a trace, which `bothends trace --save` writes: blocks of compressed rows.

    {"bothends-trace": 2}         the first line
    block, block, block ...       each: a header, the compressed state, the compressed events

1. A header holds the sizes, and the times of the first and the last point: from header to header a reader
   finds the blocks of a period. The headers are the index.
2. The state are lines as in `trace_file.py`: processes, sockets, notes, and what is known at the end. A
   reader that skips a block's events reads its state anyway, because later events refer to it.
3. The events are rows of numbers, in timeline order. What many events have in common is written once in each
   block, as a `shape`: the attributes of a call but its number, times, data and result. Of a packet the bytes
   are kept, and what they say is parsed again.
4. A block can be read without the events before it. It is written as a whole, so that a file whose writer was
   killed is valid up to its last complete block.
5. docs/reference/trace-file.md describes the format.

Hostile files: sizes are limited, and no more is decompressed than the header says.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final, NamedTuple, Protocol

from bothends.trace import trace_file
from bothends.trace.capture.arguments import data_text
from bothends.trace.capture.calls import MOVING
from bothends.trace.capture.packets import parse_packet
from bothends.trace.model import (
    PRUNE_SLACK,
    Call,
    CausalLink,
    Packet,
    Point,
    SocketAddress,
    Trace,
    trim_oldest,
)

VERSION: Final = 2
FIRST_LINE: Final = b'{"bothends-trace": 2}\n'
MAGIC: Final = b"BEtr"
SOURCE_MAGIC: Final = b"BEsr"  # of a block of what the sources report: `source_blocks.py`
# Magic, points, bytes of the state, of the rows and of the data; compressed bytes of the state and of the
# events; times of the first and of the last point, in nanoseconds. Little-endian.
HEADER: Final = struct.Struct("<4sIIIIIIQQ")
BLOCK_POINTS: Final = 8_192  # points in a block, at most
BLOCK_BYTES: Final = 1 << 20  # of data after which a block is written
MAX_SECTION: Final = 96 << 20  # bytes of a section, before compression: more is not from a trace
MAX_ROWS: Final = 1 << 20
_LEVEL: Final = 3  # of compression: higher ones take more time than they save
_TIGHT_LEVEL: Final = 6  # where little is written at a time

# The first number of a row: a shape, or one of these.
END: Final = -1  # the end of an event whose start is in the same block, and told all but its result
START_LINE: Final = -2  # an event as in `trace_file.py`: its start
END_LINE: Final = -3  # the same, its end
RELATIONS: Final = ("carries", "feeds", "reaches", "opens", "ends", "resets", "starts", "repeats")
_RELATION_NUMBERS: Final = {name: number for number, name in enumerate(RELATIONS)}
_OF_ONE_CALL: Final = (
    "number", "at", "until", "result", "error", "size", "data", "made", "ready", "ready_events",
)  # fmt: skip
_TCP_START: Final = struct.Struct("!HHII")
_UDP_START: Final = struct.Struct("!HH")
_WRAP: Final = 0xFFFFFFFF


Period = trace_file.Period


class BlockFile(Protocol):
    """Where blocks are written: an `ObserverFile` in binary."""

    def write(self, text: bytes, /, *, records: int) -> object:
        """Write a whole block with a number of records, or nothing, and return False."""


class BlockWriter(trace_file.TraceFileWriter):
    """Writes a trace block by block, during the run. `file` has its first line already.

    A block is written when it is full, and when the trace is idle.
    """

    def __init__(self, file: BlockFile, trace: Trace) -> None:
        super().__init__(_NoLines(), trace, is_begun=True)
        self._blocks = file
        self._state: list[str] = []
        self._state_keys: list[tuple[str, int]] = []  # whose lines are in `_state`
        self._shapes: dict[tuple[Any, ...], int] = {}
        self._shape_objects: list[dict[str, Any]] = []
        self._rows: list[list[Any]] = []
        self._data: list[bytes] = []
        self._data_size = 0
        self._complete: set[int] = set()  # events whose start, in this block, told all but the result
        self._number = 0  # of the last row
        self._at = 0  # of the last row
        self._base = 0  # the time of the first row
        self._first_at = self._last_at = 0

    def write(self, point: Point) -> None:
        """Add a point, after the processes and sockets it refers to if they are new or have changed."""
        event = point.event
        if not self._rows:
            self._number, self._base = 0, point.at
            self._at = self._first_at = self._last_at = point.at
        if type(event) is Call:
            self._write_call(event, is_end=point.is_end)
        elif type(event) is Packet and not event.reaches and _is_derivable(event):
            self._write_packet(event)
        else:
            self._write_as_line(point)
        if len(self._rows) >= BLOCK_POINTS or self._data_size > BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the block."""
        self._flush(_LEVEL if len(self._rows) > BLOCK_POINTS // 4 else _TIGHT_LEVEL)

    def _flush(self, level: int) -> None:
        if not self._rows and not self._state:
            return
        state = "\n".join([*self._state, ""]).encode() if self._state else b""
        content = {"at": self._base, "shapes": self._shape_objects, "rows": self._rows}
        rows = json.dumps(content, separators=(",", ":"), check_circular=False).encode()
        data = b"".join(self._data)
        packed_state = zlib.compress(state, level) if state else b""
        packed = zlib.compress(rows + data, level) if self._rows else b""
        header = HEADER.pack(
            MAGIC, len(self._rows), len(state), len(rows) if packed else 0, len(data), len(packed_state),
            len(packed), self._first_at, self._last_at,
        )  # fmt: skip
        if (
            self._blocks.write(header + packed_state + packed, records=len(self._rows) + len(self._state))
            is False
        ):
            for key in self._state_keys:  # write them again with the next block
                self._written.pop(key, None)
        self._state, self._state_keys = [], []
        self._shapes, self._shape_objects, self._rows, self._data = {}, [], [], []
        self._data_size = 0
        self._complete.clear()

    def _write_line(self, value: dict[str, Any]) -> None:
        """Add a line to the state."""
        for key, line in self._new.items():
            trim_oldest(self._written, PRUNE_SLACK)
            self._written[key] = line
            self._state_keys.append(key)
        self._state += [*self._new.values(), json.dumps(value)]
        self._new.clear()

    def _add_state(self) -> None:
        if self._new:
            for key, line in self._new.items():
                trim_oldest(self._written, PRUNE_SLACK)
                self._written[key] = line
                self._state_keys.append(key)
            self._state += self._new.values()
            self._new.clear()

    def _add_row(self, kind: int, number: int, at: int, rest: list[Any]) -> None:
        self._rows.append([kind, number - self._number, at - self._at, *rest])
        self._number, self._at = number, at
        self._last_at = max(self._last_at, at)
        self._first_at = min(self._first_at, at)

    def _write_as_line(self, point: Point) -> None:
        event = point.event
        value = self.value_of(point)
        self._add_state()
        at = point.at
        self._add_row(END_LINE if point.is_end else START_LINE, event.number, at, [value])

    def _write_call(self, call: Call, *, is_end: bool) -> None:
        number = call.number
        until = call.until
        if is_end and number in self._complete:
            self._complete.discard(number)
            rest: list[Any] = [call.result]
            if call.error or call.created_id is not None or call.ready or call.size != (call.result or 0) < 0:
                rest += [call.size, call.error, call.created_id, call.ready, call.ready_events]
                if call.created_id is not None:
                    self._write_if_changed("socket", call.created_id)
                    self._add_state()
            elif call.size != (call.result or 0):
                rest.append(call.size)
            self._add_causes(rest, number)
            self._add_row(END, number, until if until is not None else call.at, rest)
            return
        if call.messages or is_end:
            self._write_as_line(Point(call, is_end))
            return
        arguments = call.arguments
        data = call.data
        key_arguments: tuple[str | bool | None, ...] = arguments
        if data and len(arguments) > 1 and call.name in MOVING:
            shown, text = arguments[1], data_text(data)
            if shown == text:
                key_arguments = (arguments[0], None, *arguments[2:])
            elif shown == text + "...":
                key_arguments = (arguments[0], False, *arguments[2:])
        key = (
            call.process, call.thread, call.name, key_arguments, call.descriptor, call.socket, call.sockets,
            call.requested, call.address, call.flags, call.wanted_events, call.descriptors_waited,
            call.timeout_ns,
        )  # fmt: skip
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._add_shape(key, call, key_arguments)
        if until is not None:
            self._complete.add(number)
        if data:
            self._data.append(data)
            self._data_size += len(data)
            self._add_row(shape, number, call.at, [len(data)])
        else:
            self._add_row(shape, number, call.at, [])

    def _add_shape(self, key: tuple[Any, ...], call: Call, arguments: tuple[str | bool | None, ...]) -> int:
        self._write_if_changed("process", call.process)
        self._write_if_changed("socket", call.socket, *call.sockets, call.created_id)
        self._add_state()
        value = trace_file.to_json_object(call)
        for each in (
            "number",
            "at",
            "until",
            "result",
            "error",
            "size",
            "data",
            "made",
            "ready",
            "ready_events",
        ):
            value.pop(each, None)
        if arguments is not call.arguments:
            value["arguments"] = list(arguments)
        number = self._shapes[key] = len(self._shape_objects)
        self._shape_objects.append({"call": value})
        return number

    def _write_packet(self, packet: Packet) -> None:
        key = (
            packet.sender, packet.receiver, packet.interface, packet.resent,
            packet.source, packet.destination,
            None if packet.offset is None else packet.offset - packet.sequence & _WRAP,
            None if packet.acks is None else packet.acks - packet.acknowledged & _WRAP,
        )  # fmt: skip
        shape = self._shapes.get(key)
        if shape is None:
            self._write_if_changed("socket", packet.sender, packet.receiver)
            self._add_state()
            names = ("sender", "receiver", "interface", "resent")
            value = {name: item for name, item in zip(names, key, strict=False) if item}
            if key[6] is not None:
                value["offset"] = key[6]
            if key[7] is not None:
                value["acks"] = key[7]
            shape = self._shapes[key] = len(self._shape_objects)
            self._shape_objects.append({"packet": value})
        raw = packet.raw
        self._data.append(raw)
        self._data_size += len(raw)
        rest: list[Any] = [len(raw)]
        self._add_causes(rest, packet.number)
        self._add_row(shape, packet.number, packet.at, rest)

    def _add_causes(self, rest: list[Any], number: int) -> None:
        """Append the causes of an event to a row, as a list: how far back each is, and its relation."""
        causes = self._trace.causes_of(number)
        if causes:
            found: list[int] = []
            for link in causes:
                found += (number - link.cause, _RELATION_NUMBERS[link.kind])
            rest.append(found)


class _NoLines:
    def write(self, text: str, /) -> object:
        raise NotImplementedError

    def flush(self) -> None:
        pass


def _is_derivable(packet: Packet) -> bool:
    """Return whether a packet's attributes follow from its bytes."""
    raw = packet.raw
    if packet.repeats is not None or packet.until is not None or packet.synthesized or packet.lost:
        return False
    if len(raw) != packet.length or len(raw) < 28:
        return False
    start = (raw[0] & 15) * 4 if raw[0] >> 4 == 4 else 40
    if len(packet.data) != packet.size or not raw.endswith(packet.data):
        return False
    # Bits of an offset or of an acknowledgement beyond 32 would be lost.
    if (packet.offset or 0) >> 32 or (packet.acks or 0) >> 32:
        return False
    ports = packet.source.port, packet.destination.port
    if packet.protocol == "udp":
        return (raw[9 if start != 40 else 6] == 17 or start != 40) and _UDP_START.unpack_from(
            raw, start
        ) == ports
    if len(raw) < start + 20:
        return False
    return _TCP_START.unpack_from(raw, start) == (*ports, packet.sequence, packet.acknowledged)


def missing_block(count: int, reason: str) -> bytes:
    """Return the block that says in a trace file that events are missing there."""
    state = trace_file.missing_note(count, reason).encode()
    packed = zlib.compress(state)
    return HEADER.pack(MAGIC, 0, len(state), 0, 0, len(packed), 0, 0, 0) + packed


# Reading -----------------------------------------------------------------------------------------


class BlockHeader(NamedTuple):
    """The header of a block: see `HEADER`."""

    magic: bytes
    points: int
    state: int
    rows: int
    data: int
    packed_state: int
    packed: int
    first_at: int
    last_at: int


class SourceBlocks(Protocol):
    """Makes points of blocks of what the sources report: a `SourceReader`."""

    def read(self, rows: bytes, data: memoryview) -> None:
        """Read the content of a block. Raises ValueError, KeyError, TypeError and so on."""

    def is_after_period(self, at: int) -> bool:
        """Return whether blocks that begin at a time, in nanoseconds, need not be read."""

    def end(self, *, is_part: bool = False) -> None:
        """Emit what is left: the file has ended. `is_part`: not all was read."""


class TraceReader:
    """Reads a compact trace file, whose first line has been read, into `trace`.

    Args:
        file: open for reading, after the first line.
        name: of the file, in errors.
        on_point: called for each point, after it has been added.
        trace: where everything is added.
        period: the points to read; all by default.
        source: reads blocks of what the sources report; without it there must be none.

    Raises:
        TraceFileError: the file is not a trace.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        on_point: Callable[[Point], None],
        trace: Trace,
        period: Period | None = None,
        source: SourceBlocks | None = None,
    ) -> None:
        self._file, self._name, self._on_point, self._trace = file, name, on_point, trace
        self._period = period
        self._source = source
        self.is_recording = False  # whether there was a block of what the sources report
        self._is_part = False  # of a recording: later blocks are not read
        self._block = 0

    def read(self) -> None:
        """Read all blocks, or the ones of the period."""
        try:
            try:
                while self._read_block():
                    pass
            except _CutOff:
                self._trace.notes.append("the trace ends within a block: its writer was interrupted")
            if self._source is not None and self.is_recording:
                self._source.end(is_part=self._is_part)
        except (
            ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, IndexError,
            zlib.error, struct.error,
        ) as error:  # fmt: skip
            reason = f"not part of a trace ({trace_file.reason_of(error)})"
            raise trace_file.TraceFileError(self._name, self._block, reason, "block") from error

    def _read_block(self) -> bool:
        head = self._file.read(HEADER.size)
        if not head:
            return False
        self._block += 1
        marks = MAGIC, SOURCE_MAGIC
        if not any(each.startswith(head[:4]) for each in marks):
            raise ValueError("a block does not begin with its mark")
        if len(head) < HEADER.size:
            raise _CutOff
        header = BlockHeader(*HEADER.unpack(head))
        if (
            max(header[2:7]) > MAX_SECTION
            or header.rows + header.data > MAX_SECTION
            or header.points > MAX_ROWS
        ):
            raise ValueError("a section is too large")
        if header.magic == SOURCE_MAGIC:
            self._read_source(header)
            return True
        packed_state = self._file.read(header.packed_state)
        if len(packed_state) < header.packed_state:
            raise _CutOff
        if header.state:
            self._read_state(_unpack(packed_state, header.state))
        if header.points and self._trace.began_at is None:
            self._trace.began_at = header.first_at
        if not self._is_wanted(header):
            self._skip(header.packed)
            return True
        packed = self._file.read(header.packed)
        if len(packed) < header.packed:
            raise _CutOff
        if header.points:
            self._read_events(_unpack(packed, header.rows + header.data), header)
        return True

    def _read_source(self, header: BlockHeader) -> None:
        if self._source is None or (self._trace.points and not self.is_recording):
            raise ValueError("a recording where there can be none")
        self.is_recording = True
        if self._source.is_after_period(header.first_at):
            self._is_part = True
            self._skip(header.packed)
            return
        packed = self._file.read(header.packed)
        if len(packed) < header.packed:
            raise _CutOff
        unpacked = _unpack(packed, header.rows + header.data)
        self._source.read(unpacked[: header.rows], memoryview(unpacked)[header.rows :])

    def _is_wanted(self, header: BlockHeader) -> bool:
        if self._period is None or self._trace.began_at is None or not header.points:
            return True
        began = self._trace.began_at
        begin, end = began + self._period.begin, began + self._period.end
        return header.last_at >= begin and header.first_at <= end

    def _skip(self, size: int) -> None:
        if self._file.seekable():
            self._file.seek(size, 1)
        else:
            self._file.read(size)

    def _read_state(self, state: bytes) -> None:
        for line in state.decode("utf-8", "replace").splitlines():
            if trace_file.read_line(self._trace, line) is not None:
                raise ValueError("an event among the lines of the state")

    def _read_events(self, unpacked: bytes, header: BlockHeader) -> None:
        content = json.loads(unpacked[: header.rows])
        shapes = [_shape_of(each, self._trace) for each in content["shapes"]]
        rows = content["rows"]
        if len(rows) != header.points:
            raise ValueError("a block has another number of points than its header says")
        if type(sum(row[1] + row[2] for row in rows) + content["at"]) is not int:
            raise ValueError("numbers of a row are not integers")
        trace, on_point = self._trace, self._on_point
        points = _points_of(rows, shapes, memoryview(unpacked)[header.rows :], content["at"], trace)
        if self._period is not None and trace.began_at is not None:
            points = _within(points, trace.began_at + self._period.begin, trace.began_at + self._period.end)
        for point in points:
            trace.add(point)
            on_point(point)
        if trace.needs_pruning:
            trace.prune()


def _within(points: Iterator[Point], begin: int, end: int) -> Iterator[Point]:
    """Yield the points of a period, each end after its start: also one that is before the period."""
    outside = set[int]()  # events whose start is before the period
    for point in points:
        at = point.at
        if at < begin and not point.is_end:
            outside.add(point.event.number)
        if begin <= at <= end:
            if point.is_end and point.event.number in outside:
                yield Point(point.event)
            yield point


class _Shape(NamedTuple):
    """What the events of a block have in common: a call, or a packet's attributes that its bytes lack.

    `text`: what follows the text of the data in the second argument; None if that is as in the call.
    """

    call: Call | None
    text: str | None
    sender: int | None = None
    receiver: int | None = None
    interface: str = ""
    resent: bool = False
    offset: int | None = None
    acks: int | None = None


def _shape_of(value: dict[str, Any], trace: Trace) -> _Shape:
    ((kind, inner),) = value.items()
    if kind == "call":
        text = None
        arguments = inner.get("arguments", ())
        if len(arguments) > 1 and not isinstance(arguments[1], str):
            text, arguments[1] = ("" if arguments[1] is None else "..."), ""
        call = trace_file.from_json_object(Call, {**inner, "number": 0, "at": 0})
        trace_file.check_references(trace, call)
        return _Shape(call, text)
    if kind != "packet":
        raise ValueError(f"a shape of {kind!r:.40}")
    example = Packet(0, 0, "udp", _NOWHERE, _NOWHERE, 0, b"")
    for name in inner:
        if name not in ("sender", "receiver", "interface", "resent", "offset", "acks"):
            raise ValueError(f"{name!r:.40} in the shape of a packet")
        setattr(example, name, trace_file.decode_attribute(Packet, name, inner[name]))
    trace_file.check_references(trace, example)
    return _Shape(
        None, None, example.sender, example.receiver, example.interface, bool(example.resent), example.offset,
        example.acks,
    )  # fmt: skip


_NOWHERE: Final = SocketAddress("")


def _points_of(
    rows: list[list[Any]], shapes: list[_Shape], data: memoryview, at: int, trace: Trace
) -> Iterator[Point]:
    """Yield the points of a block, and add their causal links. Raises ValueError, IndexError and so on."""
    started: dict[int, Call] = {}
    number = position = 0
    parse = parse_packet
    for row in rows:
        kind = row[0]
        number += row[1]
        at += row[2]
        if not (0 < number < _LIMIT and 0 <= at < _LIMIT):
            raise ValueError("a number of more than 64 bits")
        if kind == END:
            call = started.pop(number)
            call.until = at
            _read_end(call, row[3:], trace)
            yield Point(call, True)
        elif kind >= 0:
            size = row[3] if len(row) > 3 else 0
            if not 0 <= size <= len(data) - position:
                raise ValueError("more data than the block has")
            content = bytes(data[position : position + size])
            position += size
            shape = shapes[kind]
            if shape.call is not None:
                call = started[number] = _call_of(shape.call, shape.text, number, at, content)
                yield Point(call)
            else:
                packet = parse(content, number, at, shape.interface)
                if packet is None:
                    raise ValueError("a packet that is none")
                packet.sender, packet.receiver, packet.resent = shape.sender, shape.receiver, shape.resent
                if shape.offset is not None:
                    packet.offset = packet.sequence + shape.offset & _WRAP
                if shape.acks is not None:
                    packet.acks = packet.acknowledged + shape.acks & _WRAP
                if len(row) > 4:
                    _read_causes(number, row[4], trace)
                yield Point(packet)
        elif kind in (START_LINE, END_LINE):
            yield from trace_file.points_of(trace, row[3], is_end=kind == END_LINE)
        else:
            raise ValueError(f"a row of the kind {kind!r:.40}")


_LIMIT: Final = 1 << 63


def _call_of(shape: Call, text: str | None, number: int, at: int, data: bytes) -> Call:
    arguments = shape.arguments
    if text is not None:
        arguments = (arguments[0], data_text(data) + text, *arguments[2:])
    call = Call(
        number, shape.process, shape.thread, shape.name, at, None, arguments, None, "", shape.descriptor,
        shape.socket, shape.sockets, shape.requested, 0, data, (), shape.address, None, shape.flags,
        shape.wanted_events, shape.descriptors_waited,
    )  # fmt: skip
    call.timeout_ns = shape.timeout_ns
    return call


def _read_end(call: Call, rest: list[Any], trace: Trace) -> None:
    """Set the result of a call: [result, size, causes], or all that may be known at its end, and causes."""
    if len(rest) >= 6:
        for name, item in zip(_LONG_END, rest[:6], strict=True):
            setattr(call, name, trace_file.decode_attribute(Call, name, item))
        causes = rest[6] if len(rest) > 6 else ()
    else:
        causes = rest.pop() if rest and isinstance(rest[-1], list) else ()
        result = rest[0] if rest else None
        size = rest[1] if len(rest) > 1 else result or 0
        if not (result is None or (type(result) is int and -_LIMIT < result < _LIMIT)):
            raise ValueError("the result of a call is not a number")
        if type(size) is not int or not -_LIMIT < size < _LIMIT:
            raise ValueError("the size of a call is not a number")
        call.result, call.size = result, size
    if causes:
        _read_causes(call.number, causes, trace)


_LONG_END: Final = ("result", "size", "error", "created_id", "ready", "ready_events")


def _read_causes(number: int, causes: list[int], trace: Trace) -> None:
    items = iter(causes)
    for back, relation in zip(items, items, strict=True):
        if type(back) is not int or not -_LIMIT < back < _LIMIT:
            raise ValueError("a cause is not a number")
        trace.link(CausalLink(number - back, number, RELATIONS[relation]))


class _CutOff(Exception):
    """The file ends within a block."""


def _unpack(packed: bytes, size: int) -> bytes:
    """Decompress a section, which has `size` bytes. Never produces more."""
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(packed, size + 1)
    if len(data) != size or not unpacker.eof or unpacker.unused_data:
        raise ValueError("a section has another size than its header says")
    return data
