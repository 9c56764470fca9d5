"""What is written in C does the same as its counterpart in Python."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.trace.capture import strace
from bothends.trace.capture.strace import DataMoved, split_lines_in_python
from bothends.trace.correlation import timeline as timeline_module
from bothends.trace.correlation.timeline import FOREVER, PythonTimeline, Timeline, key, key_of
from bothends.trace.model import Call, Packet, Point, ProcessEvent, SocketAddress

_pipeline = pytest.importorskip("bothends.trace._pipeline")
HERE: Final = Path(__file__).parent / "recordings"
NOWHERE: Final = SocketAddress("127.0.0.1", 9)
USUAL: Final = [
    each.encode()
    for each in r"""
7 1795255220.000000017 sendto(3<TCP:[127.0.0.1:5->127.0.0.1:2]>, "\x68\x69", 2, 0, NULL, 0) = 2 <0.000012345>
11  5.000000017 recvfrom(3<TCPv6:[[::1]:5->[::1]:6]>, "", 65536, MSG_A|MSG_B, NULL, NULL) = 0 <1.000000000>
7 5.000000017 read(33<UNIX-STREAM:[17->18]>, "\x00", 1) = 1 <0.000000001>
7 123456789012345.000000017 write(3<T:[7]>, "\xff", 9) = 12345678901234567890123 <123456789.000000001>
7 5.000000017 read(3<TCP:[a]>, "\x00"..., 9) = 8 <0.000000001>
7 5.000000017 read(3<TCP:[a]>, "\x00".., 1) = 1 <0.000000001>
7 5.000000017 close(3<TCP:[a]>) = 0 <0.000000001>
""".strip().splitlines()
]


def compiled(data: bytes) -> list[bytes | DataMoved]:
    found: list[bytes | DataMoved] = _pipeline.parse_lines(data, DataMoved, strace._CALL_NAMES)
    return found


def in_python(data: bytes) -> list[bytes | DataMoved]:
    found = list(split_lines_in_python(data))
    return found[:-1] if found[-1:] == [b""] else found  # an empty line is none


def test_usual_lines_are_found_in_c() -> None:
    found = compiled(b"\n".join(USUAL))
    assert found == in_python(b"\n".join(USUAL))
    assert [type(each) for each in found] == [DataMoved] * 5 + [bytes] * 2
    assert isinstance(found[3], DataMoved)
    assert found[3].result == 12345678901234567890123


@pytest.mark.parametrize("path", sorted(HERE.glob("*.strace")), ids=lambda path: path.stem)
def test_recordings_are_parsed_alike(path: Path) -> None:
    data = path.read_bytes().rstrip(b"\n")
    assert compiled(data) == in_python(data)


@pytest.mark.parametrize("seed", range(8))
def test_mutated_lines_are_parsed_alike(seed: int) -> None:
    generator = random.Random(seed)
    alphabet = b'0123456789abcdefxAZ_|\\",.<>()[]= \n-:\xc3'
    for _ in range(400):
        line = bytearray(generator.choice(USUAL))
        for _ in range(generator.randint(1, 3)):
            at = generator.randrange(len(line))
            size = generator.randint(0, 2)
            line[at : at + size] = bytes(generator.choice(alphabet) for _ in range(generator.randint(0, 2)))
        data = bytes(line)
        outcomes: list[list[bytes | DataMoved] | None] = []
        for parse in (compiled, in_python):
            try:
                outcomes.append(parse(data))
            except UnicodeDecodeError:
                outcomes.append(None)
        assert outcomes[0] == outcomes[1], data


def an_event(number: int, generator: random.Random) -> list[Point]:
    """Return the points of a random event."""
    at = generator.randrange(1000)
    kind = generator.randrange(6)
    if kind == 0:
        interface = generator.choice(("", "lo", "eth0"))
        return [Point(Packet(number, at, "tcp", NOWHERE, NOWHERE, 0, b"", interface=interface))]
    if kind == 1:
        return [Point(ProcessEvent(number, at, 1, "signal", "", thread=generator.randrange(3)))]
    until = generator.choice((None, at + generator.randrange(100)))
    call = Call(number, 1, generator.randrange(3), "read", at, until)
    return [Point(call), Point(call, True)]


@given(st.integers(0, 1 << 32))
def test_points_are_ordered_alike(seed: int) -> None:
    generator = random.Random(seed)
    timelines = PythonTimeline(), Timeline()
    emitted: tuple[list[Point], list[Point]] = ([], [])
    for number in range(1, generator.randint(2, 60)):
        for point in an_event(number, generator):
            for each in timelines:
                each.add(point)
        for _ in range(generator.randrange(4)):
            cause, effect = (
                key(generator.randint(max(number - 8, 1), number + 2), generator.random() < 0.3)
                for _ in range(2)
            )
            for each in timelines:
                each.add_constraint(cause, effect)
        if generator.random() < 0.2:
            until = generator.choice((generator.randrange(1100), generator.randrange(1100), FOREVER))
            for each, points in zip(timelines, emitted, strict=True):
                points += each.pop_ready(until)
        assert len(timelines[0]) == len(timelines[1])
        assert {id(each) for each in timelines[0].pending()} == {id(each) for each in timelines[1].pending()}
    for each, points in zip(timelines, emitted, strict=True):
        points += each.pop_ready()
    assert [key_of(each) for each in emitted[0]] == [key_of(each) for each in emitted[1]]
    assert timelines[0].violations == timelines[1].violations
    assert len(timelines[1]) == 0


def test_old_points_are_forgotten_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "MAX_EMITTED", 10)
    timelines = PythonTimeline(), Timeline()
    for number in range(1, 100):
        for each in timelines:
            each.add(Point(Call(number, 1, number % 3, "read", number)))
            assert len(list(each.pop_ready(number))) == 1
            each.add_constraint(key(max(number - 50, 1)), key(number + 1))  # of long ago: not waited for
            each.add_constraint(key(number), key(number + 1))
            each.add_constraint(key(number + 1), key(max(number - 50, 1), True))
    assert timelines[0].violations == timelines[1].violations
    orders = [[key_of(point) for point in each.pop_ready()] for each in timelines]
    assert orders[0] == orders[1]


@pytest.mark.parametrize(
    "attempt",
    [
        lambda timeline: timeline.add(None),
        lambda timeline: timeline.add((None, False)),
        lambda timeline: timeline.add(Point(Call(0, 1, 1, "read", 1))),
        lambda timeline: timeline.add(Point(Call(1, 1, 1, "read", 1 << 70))),
        lambda timeline: timeline.add_constraint(1),
        lambda timeline: timeline.add_constraint("a", 2),
        lambda timeline: timeline.pop_ready("a"),
        lambda timeline: _pipeline.parse_lines("text", DataMoved, ("a",) * 4),
        lambda timeline: _pipeline.parse_lines(USUAL[0], Call, ("a",) * 3),
        lambda timeline: _pipeline.parse_lines(USUAL[0], int, ("a",) * 4),
    ],
)
def test_wrong_arguments_are_refused(attempt: object) -> None:
    timeline = Timeline()
    with pytest.raises((TypeError, ValueError, AttributeError, OverflowError)):
        attempt(timeline)  # type: ignore[operator]
    timeline.add(Point(Call(1, 1, 1, "read", 1)))
    assert len(timeline) == 1
