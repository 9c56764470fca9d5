"""Blocks of a trace file that hold what the sources have reported, before anything is made of it.

    SourceRecorder   writes them while programs run: lines of strace, packets, events of the kernel
    SourceReader     makes the points of a trace of them, when the file is opened

1. A run can be faster than it can be analysed. Then only this is written while it lasts (`run_file.py`).
2. Each turn of the loop of `TraceSession` is a batch: what was read, and the time up to which points may be
   emitted. The reader does the same with it as the session would have done, so the points are the same.
3. A block has the header of `trace_blocks.py`, with another mark: `points` is the number of lines and
   packets, and there is no state. docs/reference/trace-file.md describes the content.
4. Reading a block needs the blocks before it, unlike those of points.

Hostile files: what a block holds is checked, and lines of strace may be anything.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, get_args

from bothends.escaping import escape_text
from bothends.osutil.blocked_calls import BlockedCall, CallKind, DescriptorWait, Need, RawCall
from bothends.trace import trace_file
from bothends.trace.analysis import TraceAnalysis
from bothends.trace.capture.arguments import SocketLabel
from bothends.trace.capture.blocked_threads import ThreadSnapshot
from bothends.trace.capture.calls import CallDecoder
from bothends.trace.capture.packets import RawPacket, TransitEvent
from bothends.trace.capture.running_processes import OpenFiles
from bothends.trace.capture.strace import StraceParser
from bothends.trace.correlation.timeline import FOREVER
from bothends.trace.model import (
    Call,
    KernelEvent,
    Point,
    SocketAddress,
    SocketFamily,
    SocketKind,
    Trace,
)
from bothends.trace.trace_blocks import HEADER, SOURCE_MAGIC, BlockFile

BLOCK_BYTES: Final = 1 << 20  # of lines and packets, after which a block is written
PACKET: Final = struct.Struct("<QHI")  # time in nanoseconds, index of the interface, bytes that follow
MAX_PROGRAMS: Final = 1_000
MAX_THREADS: Final = 100_000
_LEVEL: Final = 1  # of compression: recording must be fast
# The start of lines that must be decoded while nothing else is: of processes and threads that begin and end;
# and of those that show a port for the first time.
_OF_PROCESSES: Final = re.compile(
    rb"\d+ +\d+\.\d+ (?:\+\+\+|---|(?:<\.\.\. )?(?:v?fork|clone3?|execve(?:at)?)\b)"
)
_OF_PORTS: Final = re.compile(rb"\d+ +\d+\.\d+ (?:<\.\.\. )?(?:bind|listen|connect|getsockname)\b")
_PORT: Final = re.compile(rb"port=htons\((\d+)\)|:(\d+)\]>")  # of an address, of a listener's label
_LIMIT: Final = 1 << 63
_MAX_LATE: Final = 2_000_000_000  # nanoseconds from an event to the batch that has it


class SourceRecorder:
    """Writes what the sources report to a trace file, in batches."""

    def __init__(self, file: BlockFile) -> None:
        self._file = file
        self._batches: list[dict[str, Any]] = []
        self._parts: list[list[Any]] = []
        self._data: list[bytes] = []
        self._size = self._items = 0
        self._interfaces: dict[str, int] = {}
        self._first_at = self._last_at = 0
        self.items = 0  # lines and packets so far
        self.size = 0  # bytes written so far
        self.bytes_read = 0  # before compression

    def add_program(self, role: str, command: str, *, from_exec: bool) -> None:
        """Add a program. The first one has the number 0."""
        self._parts.append(["program", role, command, from_exec])

    def begin(self, *, has_packets: bool) -> None:
        """Note whether packets are captured, before all else."""
        self._parts.append(["packets captured", has_packets])

    def add_lines(self, program: int, data: bytes) -> None:
        """Add bytes that strace, or another source, has written about a program."""
        self._parts.append(["lines", program, len(data)])
        self._add(data, data.count(b"\n"))

    def add_unfinished(self, program: int) -> None:
        """Note that the start of a call, at the end of what has been written, counts already."""
        self._parts.append(["unfinished", program])

    def add_end(self, program: int) -> None:
        """Note that all lines about a program have been read."""
        self._parts.append(["end", program])

    def add_process(
        self, program: int, pid: int, threads: Sequence[int], at: int, role: str, files: OpenFiles | None
    ) -> None:
        """Add a process that ran before the trace, and its open files if they are known."""
        self._parts.append(["process", program, pid, list(threads), at, role, files and _encode_files(files)])

    def add_packets(self, raws: Iterable[RawPacket]) -> None:
        """Add captured packets."""
        pieces, raws = [], list(raws)
        if any(each.transit is not None for each in raws):
            self._parts.append(["sightings", [_encode_sighting(each) for each in raws]])
            self._items += len(raws)
            self.items += len(raws)
            return
        for at, interface, data, _ in raws:
            number = self._interfaces.setdefault(interface, len(self._interfaces))
            pieces += [PACKET.pack(at, number, len(data)), data]
        if pieces:
            data = b"".join(pieces)
            self._parts.append(["packets", len(pieces) // 2, len(data)])
            self._add(data, len(pieces) // 2)

    def add_kernel_events(self, events: Iterable[KernelEvent]) -> None:
        """Add what the kernel has reported."""
        found = [trace_file.to_json_object(each) for each in events]
        if found:
            self._parts.append(["kernel", found])

    def add_namespace(self, pid: int, name: str) -> None:
        """Note that a process is in another network namespace."""
        self._parts.append(["namespace", pid, name])

    def add_freeze(self, at: int, *, by_interrupt: bool) -> None:
        """Note when bothends, or ^C, began to end the programs."""
        self._parts.append(["freeze", at, by_interrupt])

    def add_blocked(
        self, at: int, snapshots: Iterable[tuple[int, ThreadSnapshot]], programs: list[int]
    ) -> None:
        """Note what threads were blocked in at a time: pairs of a pid and a snapshot, of some programs."""
        self._parts.append(["blocked", at, [_encode_snapshot(*each) for each in snapshots], programs])

    def end_batch(self, horizon: int, until: int) -> int:
        """End a batch: later packets than `horizon` have to wait, and points up to `until` are known.

        Both in nanoseconds; `FOREVER` for all. Returns the number of lines and packets so far.
        """
        if not self._parts:
            return self.items
        self._batches.append({"horizon": horizon, "until": until, "parts": self._parts})
        self._parts = []
        self._last_at = max(self._last_at, min(until, time.time_ns()))
        if self._size > BLOCK_BYTES:
            self.flush()
        return self.items

    def end(self, counters: dict[str, int], ended_by: str, notes: Sequence[str]) -> None:
        """Write the last block: the run has ended."""
        self._parts.append(["ended", counters, ended_by, list(notes)])
        self.end_batch(FOREVER, FOREVER)
        self.flush()

    def flush(self) -> None:
        """Write the block."""
        if not self._batches:
            return
        content = {"interfaces": list(self._interfaces), "batches": self._batches}
        rows = json.dumps(content, separators=(",", ":")).encode()
        data = b"".join(self._data)
        packed = zlib.compress(rows + data, _LEVEL)
        first_at = self._first_at or self._last_at
        header = HEADER.pack(
            SOURCE_MAGIC, self._items, 0, len(rows), len(data), 0, len(packed), first_at, self._last_at
        )
        self.size += len(header) + len(packed)
        self._file.write(header + packed, records=max(self._items, 1))
        self._batches, self._data, self._size, self._items = [], [], 0, 0
        self._first_at = self._last_at

    def _add(self, data: bytes, items: int) -> None:
        self._data.append(data)
        self._size += len(data)
        self.bytes_read += len(data)
        self._items += items
        self.items += items


class ProgramRecorder:
    """Records what is read about one program, and selects what is decoded while it runs: all, at first."""

    def __init__(self, recorder: SourceRecorder, number: int) -> None:
        self._recorder, self._number = recorder, number
        self._selector: LinesOfProcesses | None = None

    def select(self, rest: bytes) -> None:
        """From now on, select lines about processes only. `rest` is the start of the next line."""
        self._selector = LinesOfProcesses(rest)

    def select_all(self) -> None:
        """From now on, select all lines again."""
        self._selector = None

    def add_lines(self, data: bytes) -> bytes:
        """Add bytes that have been read. Returns those to be decoded."""
        self._recorder.add_lines(self._number, data)
        return data if self._selector is None else self._selector.feed(data)

    @property
    def ports(self) -> set[int]:
        """The ports that lines have shown since others than those of processes are not decoded."""
        return set() if self._selector is None else self._selector.ports

    def add_unfinished(self) -> None:
        """Note that the start of a call, at the end of what has been read, is decoded already."""
        self._recorder.add_unfinished(self._number)

    def add_end(self) -> None:
        """Note that all has been read."""
        self._recorder.add_end(self._number)

    def add_process(
        self, pid: int, threads: Sequence[int], at: int, role: str, files: OpenFiles | None
    ) -> None:
        """Add a process that ran before the trace, and its open files if they are known."""
        self._recorder.add_process(self._number, pid, threads, at, role, files)


class LinesOfProcesses:
    """Selects the lines about processes and threads that begin and end, of bytes in any pieces.

    `ports` are those that other lines show: their packets are the programs'.
    """

    def __init__(self, rest: bytes = b"") -> None:
        self._rest = rest
        self.ports: set[int] = set()

    def feed(self, data: bytes) -> bytes:
        """Return the lines among those that these bytes complete."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        # A search in all of the data would look at each byte of what is sent, in hexadecimal.
        lines = data[:end].split(b"\n")
        for line in filter(_OF_PORTS.match, lines):
            self.ports.update(int(one or other) for one, other in _PORT.findall(line))
        return b"".join([line + b"\n" for line in filter(_OF_PROCESSES.match, lines)])


def _encode_files(files: OpenFiles) -> dict[str, Any]:
    return {
        "sockets": {str(number): list(label) for number, label in files.sockets.items()},
        "listening": sorted(files.listening),
        "nonblocking": sorted(files.nonblocking),
        "interest_lists": {
            str(number): {str(each): list(events) for each, events in interests.items()}
            for number, interests in files.interest_lists.items()
        },
    }


def _decode_files(value: dict[str, Any]) -> OpenFiles:
    found = OpenFiles()
    for number, label in value["sockets"].items():
        family, kind, inode, peer_inode, local, peer = label
        if family not in get_args(SocketFamily) or kind not in get_args(SocketKind):
            raise ValueError("a socket of an unknown kind")
        found.sockets[int(number)] = SocketLabel(
            family, kind, int(inode), int(peer_inode), _decode_address(local), _decode_address(peer)
        )
    found.listening = {int(each) for each in value["listening"]}
    found.nonblocking = {int(each) for each in value["nonblocking"]}
    for number, interests in value["interest_lists"].items():
        found.interest_lists[int(number)] = {
            int(each): (str(events), int(data)) for each, (events, data) in interests.items()
        }
    return found


def _decode_address(value: Any) -> SocketAddress | None:
    if value is None:
        return None
    host, port = value
    return SocketAddress(str(host), None if port is None else int(port))


def _encode_snapshot(pid: int, snapshot: ThreadSnapshot) -> list[Any]:
    raw, call = snapshot.raw, snapshot.call
    descriptor = call.waits[0].fd if call.direct and call.waits else None
    return [
        pid, snapshot.thread, raw.number, list(raw.arguments), raw.stack_pointer, call.timeout, descriptor
    ]  # fmt: skip


def _decode_snapshot(process: int, value: list[Any]) -> ThreadSnapshot:
    _, thread, number, arguments, stack_pointer, timeout, descriptor = value
    waits = () if descriptor is None else (DescriptorWait(int(descriptor), Need.DATA),)
    return ThreadSnapshot(
        process,
        int(thread),
        RawCall(int(number), tuple(map(int, arguments)), int(stack_pointer)),
        BlockedCall(
            "",
            CallKind.DESCRIPTORS if waits else CallKind.OTHER,
            waits,
            None if timeout is None else float(timeout),
            direct=bool(waits),
        ),
    )


def _encode_sighting(raw: RawPacket) -> list[Any]:
    transit = None
    if raw.transit is not None:
        event, direction, number, reaches, toxic, arrived_as = raw.transit
        transit = [event, list(direction), number, reaches, toxic, base64.b64encode(arrived_as).decode()]
    return [raw.at, raw.interface, base64.b64encode(raw.data).decode(), transit]


def _decode_sighting(value: list[Any]) -> RawPacket:
    at, interface, data, transit = value
    if transit is None:
        return RawPacket(_time(at), str(interface), base64.b64decode(data))
    event, (start, end), number, reaches, toxic, arrived_as = transit
    if event not in ("sent", "lost", "arrived"):
        raise ValueError("an event that is none")
    found = TransitEvent(
        event, (int(start), int(end)), int(number), str(reaches), str(toxic), base64.b64decode(arrived_as)
    )
    return RawPacket(_time(at), str(interface), base64.b64decode(data), found)


class SourceReader:
    """Makes points of what was recorded, in the order in which a session would have made them.

    Args:
        trace: where everything is added.
        on_point: called for each point, after it has been added.
        period: the points to add; all by default. All blocks before its end are read.
    """

    def __init__(
        self, trace: Trace, on_point: Callable[[Point], None], period: trace_file.Period | None = None
    ) -> None:
        self._trace = trace
        self._period = period or trace_file.Period()
        self.analysis = TraceAnalysis(trace, on_point, is_wanted=self._is_wanted)
        self.programs: list[tuple[CallDecoder, StraceParser]] = []
        self.held: deque[RawPacket] = deque()  # packets later than the calls that are known
        self._snapshots: dict[int, ThreadSnapshot] = {}
        self._undrawn: dict[int, Call] = {}
        self._snapshot_at = 0
        self._has_ended = False
        self.goes_on = False  # the run: it has been recorded up to now

    def read(self, rows: bytes, data: memoryview) -> None:
        """Read the content of a block. Raises ValueError, KeyError, TypeError and so on."""
        content = json.loads(rows)
        interfaces = [str(each) for each in content["interfaces"]]
        position = 0
        for batch in content["batches"]:
            horizon, until = _time(batch["horizon"]), _time(batch["until"])
            kernel_events: list[KernelEvent] = []
            for kind, *values in batch["parts"]:
                if kind in ("lines", "packets"):
                    number, size = (int(each) for each in values)
                    if not 0 <= size <= len(data) - position:
                        raise ValueError("more data than the block has")
                    found = data[position : position + size]
                    position += size
                    if kind == "lines":
                        self._read_lines(number, bytes(found))
                    else:
                        self.held.extend(_packets_of(found, interfaces))
                elif kind == "sightings":
                    self.held.extend(map(_decode_sighting, values[0]))
                elif kind == "kernel":
                    kernel_events += [trace_file.from_json_object(KernelEvent, each) for each in values[0]]
                else:
                    self._read_part(kind, values)
            while self.held and self.held[0].at <= horizon:
                self.analysis.add_packet(self.held.popleft())
            self.analysis.add_kernel_events(kernel_events)
            self.analysis.emit_until(until)
            if self._has_ended:
                self._finish()

    def _is_wanted(self, point: Point) -> bool:
        at = point.at
        if self._trace.began_at is None:
            self._trace.began_at = at
        return self._period.begin <= at - self._trace.began_at <= self._period.end

    def is_after_period(self, at: int) -> bool:
        """Return whether blocks that begin at a time, in nanoseconds, need not be read."""
        began = self._trace.began_at
        return began is not None and at - _MAX_LATE > began + self._period.end

    def end(self, *, is_part: bool = False) -> None:
        """Emit what is left: the file has ended, perhaps before the run did. `is_part`: not all was read."""
        if self.goes_on:
            return
        if is_part:
            self.analysis.emit_until(FOREVER)
        elif not self._has_ended:
            self._trace.notes.append("the recording ends before the run: its writer was interrupted")
            self.analysis.emit_until(FOREVER)
            self._finish()

    def _finish(self) -> None:
        self._trace.freeze()
        self.analysis.record_blocked_calls(self._snapshots, self._undrawn, self._snapshot_at)
        count = sum(parser.unparsed_count for _, parser in self.programs)
        if count:
            self._trace.notes.append(
                f"{count:,} {'line' if count == 1 else 'lines'} of strace could not be parsed"
            )

    def _read_lines(self, program: int, data: bytes) -> None:
        decoder, parser = self._program(program)
        for point in decoder.decode(parser.feed(data)):
            self.analysis.add_point(point)

    def _program(self, number: int) -> tuple[CallDecoder, StraceParser]:
        if not 0 <= number < len(self.programs):
            raise ValueError("an unknown program")
        return self.programs[number]

    def _read_part(self, kind: str, values: list[Any]) -> None:
        analysis = self.analysis
        match kind, values:
            case "program", [role, command, from_exec]:
                if len(self.programs) >= MAX_PROGRAMS:
                    raise ValueError("too many programs")
                decoder = analysis.add_decoder(str(role), str(command))
                self.programs.append((decoder, StraceParser(from_exec=bool(from_exec))))
            case "packets captured", [has_packets]:
                analysis.correlator.has_packets = bool(has_packets)
            case "unfinished", [number]:
                decoder, parser = self._program(number)
                started = parser.unfinished_call()
                for point in decoder.decode([started] if started is not None else []):
                    analysis.add_point(point)
            case "end", [number]:
                decoder, parser = self._program(number)
                for point in decoder.decode(parser.feed_eof()):
                    analysis.add_point(point)
                for point in decoder.finish():
                    analysis.add_point(point)
            case "process", [number, pid, threads, at, role, files]:
                self._add_process(number, int(pid), threads, _time(at), str(role), files)
            case "namespace", [pid, name]:
                for process in reversed(self._trace.processes.values()):
                    if process.pid == pid:
                        process.namespace = escape_text(str(name))
                        break
            case "freeze", [at, by_interrupt]:
                analysis.freeze(_time(at), by_interrupt=bool(by_interrupt))
            case "blocked", [at, snapshots, programs]:
                self._read_blocked(_time(at), snapshots, programs)
            case "ended", [counters, ended_by, notes]:
                self._trace.counters |= {str(name): int(count) for name, count in counters.items()}
                self._trace.ended_by = escape_text(str(ended_by))
                self._trace.notes += [escape_text(str(each)) for each in notes]
                self._has_ended = True
            case _:
                raise ValueError(f"a part of the kind {kind!r:.40}")

    def _add_process(
        self, number: int, pid: int, threads: list[int], at: int, role: str, files: dict[str, Any] | None
    ) -> None:
        decoder, _ = self._program(number)
        if len(threads) > MAX_THREADS:
            raise ValueError("too many threads")
        if role:
            decoder.names[pid] = role
        for point in decoder.add_attached(pid, [int(each) for each in threads], at):
            self.analysis.add_point(point)
        if files is not None:
            decoder.add_open_files(pid, _decode_files(files))

    def _read_blocked(self, at: int, snapshots: list[Any], programs: list[int]) -> None:
        self._snapshot_at = at
        numbers: dict[int, int] = {}
        for number in programs:
            decoder, _ = self._program(number)
            numbers |= {pid: process for process, pid, _ in decoder.running_threads()}
            for _, _, thread in decoder.running_threads():
                self._snapshots.pop(thread, None)
                self._undrawn.pop(thread, None)
            self._undrawn |= {call.thread: call for call in decoder.blocked_calls()}
        for each in snapshots:
            if each[0] in numbers:
                found = _decode_snapshot(numbers[each[0]], each)
                self._snapshots[found.thread] = found


def _packets_of(data: memoryview, interfaces: list[str]) -> Iterable[RawPacket]:
    position = 0
    while position < len(data):
        at, number, size = PACKET.unpack_from(data, position)
        position += PACKET.size
        if at >= _LIMIT or size > len(data) - position:
            raise ValueError("a packet that is none")
        yield RawPacket(at, interfaces[number], bytes(data[position : position + size]))
        position += size


def _time(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= FOREVER:
        raise ValueError("a time that is none")
    return value
