"""The compact trace file: the same as lines, in a tenth of the bytes; a part of it; cut off; hostile."""

from __future__ import annotations

import copy
import io
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest

from bothends.trace import trace_blocks, trace_file
from bothends.trace.capture.arguments import data_text
from bothends.trace.capture.packets import parse_packet
from bothends.trace.findings import run_rules
from bothends.trace.model import (
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
)
from bothends.trace.opening import open_trace
from bothends.trace.trace_blocks import HEADER, BlockHeader, BlockWriter, TraceReader
from bothends.trace.trace_file import Period, TraceFileError
from tests.tools import needs_tool
from tests.trace.running import python_command, run_traced
from tests.trace.test_trace_file import PROGRAM_SOURCE, drawn_lines, hostile_trace, trace_file_text

ROUND_TRIPS: Final = 3_000


class Memory:
    """A file in memory. `write` returns False while it is full."""

    def __init__(self) -> None:
        self.data = trace_blocks.FIRST_LINE
        self.is_full = False

    def write(self, text: bytes, /, *, records: int) -> bool:
        assert records > 0
        if not self.is_full:
            self.data += text
        return not self.is_full


def written(trace: Trace, block: int = trace_blocks.BLOCK_POINTS) -> bytes:
    """Return a trace as a compact file whose blocks have at most `block` points."""
    memory = Memory()
    writer = BlockWriter(memory, trace)
    for number, point in enumerate(trace.points, 1):
        writer.write(point)
        if number % block == 0:
            writer.flush()
    writer.write_end()
    writer.flush()
    return memory.data


def read(data: bytes, period: Period | None = None) -> Trace:
    trace = Trace()
    file = io.BytesIO(data)
    assert file.readline() == trace_blocks.FIRST_LINE
    TraceReader(file, "a.trace", lambda _: None, trace, period).read()
    return trace


def values(trace: Trace) -> list[tuple[object, ...]]:
    """Return everything that the events of a trace hold, and the order of their points."""
    found: list[tuple[object, ...]] = [(point.event.number, point.is_end) for point in trace.points]
    return found + [tuple(getattr(event, each.name) for each in fields(event)) for event in trace.events()]


def echo_trace(round_trips: int = ROUND_TRIPS) -> Trace:
    """Return a trace of an echo whose packets are real bytes; each round trip takes 100 us."""
    trace = Trace()
    here, there = SocketAddress("127.0.0.1", 12345), SocketAddress("127.0.0.1", 12000)
    for number, (role, local, peer) in enumerate((("client", here, there), ("server", there, here)), 1):
        trace.processes[number] = TracedProcess(number, 10 + number, role)
        trace.sockets[number] = Socket(number, "inet", "datagram", local=local, peer=peer)
    at, number = 1_795_255_220_000_000_000, 0
    for count in range(round_trips):
        data = b"round trip %05d\\\n" % count
        size = len(data)
        for sender in (1, 2):
            receiver = 3 - sender
            ports = bytes.fromhex("30392ee0" if sender == 1 else "2ee03039")
            raw = (
                bytes.fromhex("4500")
                + (28 + size).to_bytes(2)
                + bytes.fromhex("000000004011 0000 7f000001 7f000001")
            )
            packet = parse_packet(
                raw + ports + (8 + size).to_bytes(2) + b"\0\0" + data, number + 2, at + 10, "lo"
            )
            assert packet is not None
            packet.sender, packet.receiver = sender, receiver
            shown = (f"{2 + sender}", data_text(data), str(size), "0", "NULL", "0")
            send = Call(
                number + 1,
                sender,
                10 + sender,
                "sendto",
                at,
                at + 20_000,
                shown,
                size,
                "",
                2 + sender,
                sender,
                (),
                size,
                size,
                data,
            )
            receive = Call(
                number + 3,
                receiver,
                10 + receiver,
                "recvfrom",
                at + 5,
                at + 40_000,
                (f"{2 + receiver}", shown[1], "100", "0", "NULL", "NULL"),
                size,
                "",
                2 + receiver,
                receiver,
                (),
                100,
                size,
                data,
            )
            for point in (Point(send), Point(receive), Point(packet), Point(send, True)):
                trace.add(point)
            trace.link(CausalLink(send.number, packet.number, "carries"))
            trace.link(CausalLink(packet.number, receive.number, "feeds"))
            trace.add(Point(receive, True))
            at, number = at + 50_000, number + 3
    return trace


def odd_trace() -> Trace:
    """Return a trace with everything that is not usual in its calls and packets."""
    trace = echo_trace(2)
    address = SocketAddress("::1", 1)
    number, at = 100, max(point.at for point in trace.points)
    long = bytes(range(256)) * 16
    calls = (
        Call(
            0,
            1,
            11,
            "recvmmsg",
            at,
            at + 1,
            ("3",),
            2,
            "",
            3,
            1,
            (),
            9,
            3,
            b"abc",
            (Message(3, b"abc", address),),
        ),
        Call(
            0,
            1,
            11,
            "sendto",
            at + 2,
            at + 3,
            ("3", data_text(long) + "...", "9000"),
            8000,
            "",
            3,
            1,
            (),
            9000,
            8000,
            long,
            (),
            address,
            None,
            frozenset({"MSG_MORE"}),
        ),
        Call(0, 1, 11, "recvfrom", at + 4, at + 5, ("3", "NULL", "9"), -1, "EAGAIN", 3, 1),
        Call(0, 1, 11, "accept4", at + 6, at + 7, ("3",), 5, "", 3, 1, created_id=2, address=address),
        Call(
            0,
            1,
            11,
            "poll",
            at + 8,
            at + 9,
            ("[]", "1"),
            1,
            "",
            None,
            None,
            (1, 2),
            wanted_events=("POLLIN", ""),
            descriptors_waited=(0,),
            ready=(2,),
            ready_events=("POLLHUP",),
            timeout_ns=5,
        ),
        Call(0, 2, 12, "shutdown", at + 10, at + 11, ("4", "SHUT_WR"), 0, "", 4, 2),
        Call(0, 2, 12, "recvfrom", at + 12, None, ("4",), None, "", 4, 2, requested=100),
    )
    for call in calls:
        number += 1
        call.number = number
        trace.add(Point(call))
        if call.until is not None:
            trace.add(Point(call, True))
    trace.link(CausalLink(101, 106, "ends"))
    packets = (
        Packet(
            0,
            at + 20,
            "tcp",
            address,
            address,
            3,
            b"abc",
            ("PSH",),
            5,
            6,
            7,
            8,
            9,
            True,
            1,
            1,
            2,
            "lo",
            b"r" * 60,
            14,
        ),
        Packet(
            0,
            at + 21,
            "tcp",
            address,
            address,
            3,
            b"abc",
            ("PSH",),
            5,
            6,
            7,
            1 << 33,
            9,
            False,
            None,
            None,
            None,
            "eth0",
            b"",
            0,
            "server",
            at + 22,
            "loss",
            True,
        ),
    )
    for packet in packets:
        number += 1
        packet.number = number
        trace.add(Point(packet))
        if packet.until is not None:
            trace.add(Point(packet, True))
    trace.add(Point(ProcessEvent(number + 1, at + 30, 1, "ended", "exit status 1", 1, 11)))
    trace.notes.append("a note")
    return trace


@pytest.mark.parametrize("block", [1, 3, 100_000])
@pytest.mark.parametrize("make", [odd_trace, hostile_trace, lambda: echo_trace(20)])
def test_blocks_hold_all_of_a_trace(make: Callable[[], Trace], block: int) -> None:
    trace = make()
    read_back = read(written(trace, block))
    assert values(read_back) == values(trace)
    assert sorted(read_back.links()) == sorted(trace.links())
    for mine, other in ((trace.sockets, read_back.sockets), (trace.processes, read_back.processes)):
        for number in other:  # those to which an event refers
            assert trace_file.to_json_object(mine[number]) == trace_file.to_json_object(other[number])


@needs_tool("strace")
def test_blocks_hold_all_of_a_recorded_trace(tmp_path: Path) -> None:
    trace = run_traced(python_command(PROGRAM_SOURCE))
    (tmp_path / "a").write_bytes(written(trace, 10))
    read_back = Trace()
    with open_trace(tmp_path / "a") as file:
        file.read(lambda _: None, read_back)
    assert values(read_back) == values(trace)
    assert drawn_lines(read_back) == drawn_lines(trace)
    assert run_rules(read_back) == run_rules(trace)


def test_an_event_takes_few_bytes() -> None:
    trace = echo_trace()
    compact, lines = len(written(trace)), len(trace_file_text(trace))
    assert compact < 30 * 6 * ROUND_TRIPS
    assert compact < lines / 10


def test_period_of_a_trace_reads_its_blocks_only() -> None:
    trace = echo_trace()
    whole = written(trace, 500)
    period = Period(100_000_000, 101_000_000)
    begin = trace.points[0].at + period.begin
    part = read(whole, period)
    expected = [point.event.number for point in trace.points if begin <= point.at <= begin + 1_000_000]
    assert set(expected) == {point.event.number for point in part.points}
    assert part.began_at == trace.points[0].at
    at, broken = len(trace_blocks.FIRST_LINE), whole
    for header in headers(whole):  # what is not read may be anything
        start = at + HEADER.size + header.packed_state
        at = start + header.packed
        if header.last_at < begin or header.first_at > begin + 1_000_000:
            broken = broken[:start] + b"\0" * header.packed + broken[at:]
    assert broken != whole
    assert values(read(broken, period)) == values(part)


def test_lines_of_a_period() -> None:
    trace = echo_trace(100)
    part = Trace()
    lines = trace_file_text(trace).splitlines(keepends=True)
    trace_file.read(lines, "a", lambda _: None, part, Period(2_000_000, 3_000_000))
    assert 0 < len(part.points) < 150


def headers(data: bytes) -> Iterator[BlockHeader]:
    at = len(trace_blocks.FIRST_LINE)
    while at < len(data):
        header = BlockHeader(*HEADER.unpack_from(data, at))
        yield header
        at += HEADER.size + header.packed_state + header.packed


def test_cut_file_is_read_up_to_its_last_whole_block() -> None:
    trace = echo_trace(60)
    whole = written(trace, 100)
    first = next(headers(whole))
    end = len(trace_blocks.FIRST_LINE) + HEADER.size + first.packed_state + first.packed
    for cut in (end + 1, end + 3, end + HEADER.size - 1, end + HEADER.size, end + HEADER.size + 40):
        part = read(whole[:cut])
        assert len(part.points) == 100
        assert part.notes == ["the trace ends within a block: its writer was interrupted"]
    assert not read(whole[:end]).notes


def test_state_of_a_block_that_was_not_written_is_written_with_the_next() -> None:
    trace, memory = echo_trace(2), Memory()
    writer = BlockWriter(memory, trace)
    points = list(trace.points)
    memory.is_full = True
    writer.write(points[0])
    writer.flush()
    memory.is_full = False
    memory.write(trace_blocks.missing_block(1, "no space"), records=1)
    for point in points[5:]:
        writer.write(point)
    writer.flush()
    read_back = read(memory.data)
    assert [socket.number for socket in read_back.sockets.values()] == [2, 1]
    assert read_back.notes == ["1 event is missing: no space"]


def block(
    rows: bytes, data: bytes = b"", state: bytes = b"", points: int = 1, size: int | None = None
) -> bytes:
    """Return a block with these sections. `size`: what the header says about the size of its rows."""
    packed_state, packed = zlib.compress(state) if state else b"", zlib.compress(rows + data)
    header = HEADER.pack(
        trace_blocks.MAGIC,
        points,
        len(state),
        len(rows) if size is None else size,
        len(data),
        len(packed_state),
        len(packed),
        5,
        5,
    )
    return header + packed_state + packed


STATE = b'{"process": {"number": 1, "pid": 1, "role": "x"}}\n'
SHAPE = '{"call": {"process": 1, "thread": 1, "name": "read"}}'


def content(shapes: str, rows: str) -> bytes:
    return f'{{"at": 5, "shapes": [{shapes}], "rows": [{rows}]}}'.encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"x" * 100, "does not begin with its mark"),
        (block(content(SHAPE, "[0, 1, 0]")), "process 1 is in no line before"),
        (block(b"\0" * (64 << 20), size=10), "another size"),  # far more than its header says
        (block(b"\0" * 1000, size=1 << 31), "too large"),
        (block(b"\0" * 1000, points=1 << 31), "too large"),
        (block(b"[]", size=50), "another size"),
        (block(content("", ""), state=STATE), "another number of points"),
        (block(b"[" * 100_000, state=STATE), "maximum recursion depth"),
        (block(content(SHAPE, "[0, 1.5, 0]"), state=STATE), "not integers"),
        (block(content(SHAPE, "[0, 1e400, 0]"), state=STATE), "not integers"),
        (block(content(SHAPE, f"[0, {1 << 80}, 0]"), state=STATE), "more than 64 bits"),
        (block(content(SHAPE, "[0, 1, -9]"), state=STATE), "more than 64 bits"),
        (block(content(SHAPE, "[0, 1, 0, 9]"), state=STATE), "more data than the block has"),
        (block(content(SHAPE, "[0, 1, 0, -9]"), state=STATE), "more data than the block has"),
        (block(content(SHAPE, "[7, 1, 0]"), state=STATE), "list index out of range"),
        (block(content(SHAPE, "[-1, 1, 0, 0]"), state=STATE), "1"),
        (block(content(SHAPE, "[-9, 1, 0, 0]"), state=STATE), "a row of the kind -9"),
        (block(content('{"packet": {}}', "[0, 1, 0, 3]"), b"abc", STATE), "a packet that is none"),
        (block(content('{"packet": {"raw": "x"}}', "[0, 1, 0]"), state=STATE), "in the shape of a packet"),
        (
            block(content('{"packet": {"sender": 5}}', "[0, 1, 0]"), state=STATE),
            "socket 5 is in no line before",
        ),
        (block(content("", '[-2, 1, 0, {"note": "x"}]'), state=STATE), "no event"),
        (
            block(b"", state=b'{"blocked": {"number": 1, "process": 1, "thread": 1, "name": "", "at": 1}}'),
            "no line",
        ),
        (block(b"", state=b"\xff"), "Expecting value"),
        (HEADER.pack(trace_blocks.MAGIC, 1, 0, 9, 0, 0, 9, 0, 0) + b"not zlib.", "Error -3"),
    ],
)
def test_hostile_block_is_refused_in_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(TraceFileError) as raised:
        read(trace_blocks.FIRST_LINE + data)
    assert str(raised.value).startswith("a.trace, block 1: not part of a trace (")
    assert reason in str(raised.value)
    assert str(raised.value).isprintable()


def test_any_bytes_are_read_or_refused() -> None:
    whole, generator = written(odd_trace(), 7), random.Random(1)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(generator.choice([1, 1, 3, 20])):
            data[generator.randrange(len(trace_blocks.FIRST_LINE), len(data))] = generator.randrange(256)
        try:
            read(bytes(data[: generator.choice([len(data), generator.randrange(30, len(data))])]))
        except TraceFileError as error:
            refused += 1
            assert str(error).isprintable()  # noqa: PT017
    assert 100 < refused < 400


VALUES: Final[list[Any]] = [
    None,
    -1,
    0,
    1,
    7,
    2**63,
    2**70,
    1.5,
    True,
    "",
    "\x1b[31m",
    [],
    [1],
    [[]],
    {},
    {"call": {}},
]


def mutate(value: Any, generator: random.Random) -> Any:
    if isinstance(value, dict) and value and generator.random() < 0.9:
        key = generator.choice(list(value))
        value[key] = mutate(value[key], generator)
        return value
    if isinstance(value, list) and value and generator.random() < 0.9:
        at = generator.randrange(len(value))
        value[at] = mutate(value[at], generator)
        return value
    return copy.deepcopy(generator.choice(VALUES))


def test_any_rows_are_read_or_refused() -> None:
    """The same, inside the compression: with any shapes and rows."""
    whole, generator = written(odd_trace()), random.Random(2)
    (header, *_) = headers(whole)
    at = len(trace_blocks.FIRST_LINE) + HEADER.size
    state = zlib.decompress(whole[at : at + header.packed_state])
    body = zlib.decompress(whole[at + header.packed_state :][: header.packed])
    refused = 0
    for _ in range(600):
        changed = json.loads(body[: header.rows])
        for _ in range(generator.choice([1, 1, 4])):
            changed = mutate(changed, generator)
        rows = json.dumps(changed).encode()
        points = (
            len(changed["rows"]) if isinstance(changed, dict) and isinstance(changed.get("rows"), list) else 1
        )
        try:
            trace = read(trace_blocks.FIRST_LINE + block(rows, body[header.rows :], state, points=points))
            assert all(line.isprintable() for line in drawn_lines(trace))
        except TraceFileError as error:
            refused += 1
            assert str(error).isprintable()  # noqa: PT017
    assert 100 < refused < 600
