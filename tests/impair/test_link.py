"""One direction with a scripted sink: whatever it takes at a time, all arrives, once and in order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bothends.impair.link import QUEUE, Pathway
from bothends.toxics.attributes import from_words
from bothends.toxics.base import Medium, Toxic
from bothends.toxics.latency import Latency
from bothends.toxics.limit_data import LimitData
from bothends.toxics.pipeline import Pipeline
from bothends.toxics.slicer import Slicer
from bothends.toxics.stall import Stall
from tests.toxics.path import DATAGRAMS, MESSAGES, STREAM, stage


class Sink:
    """Takes what its script says: so many bytes, or -1 for nothing now; when the script ends, everything."""

    def __init__(self, script: list[int] | None = None) -> None:
        self.script = list(script or ())
        self.taken: list[bytes] = []
        self.finished = 0
        self.is_gone = False

    def send(self, pieces: list[bytes | memoryview]) -> int:
        if self.is_gone:
            raise BrokenPipeError
        assert not self.finished
        data = b"".join(pieces)
        count = min(self.script.pop(0), len(data)) if self.script else len(data)
        if count >= 0:
            self.taken.append(data[:count])
        return count

    def finish(self) -> None:
        self.finished += 1


class LoopOfTheTest:
    """As much of a loop as a direction needs, on a clock of the test's."""

    def __init__(self) -> None:
        self.now = 0.0

    def tick(self) -> float:
        return self.now

    def wake(self, timed: Pathway, when: float) -> None:
        timed.wake_at = min(timed.wake_at, when)


class Owner:
    """Writes down what its direction tells it."""

    def __init__(self) -> None:
        self.loop = LoopOfTheTest()
        self.told: list[str] = []

    def delivered(self, direction: Pathway) -> None:
        self.told.append("delivered")

    def close(self) -> None:
        self.told.append("close")

    def reset(self) -> None:
        self.told.append("reset")

    def lost(self, direction: Pathway) -> None:
        self.told.append("lost")

    def settle(self) -> None:
        pass


def pathway(sink: Sink, *toxics: Toxic, medium: Medium = STREAM) -> tuple[Pathway, Owner]:
    owner = Owner()
    pipeline = Pipeline(medium, [stage(each, medium) for each in toxics])
    return Pathway(owner, sink, pipeline), owner  # type: ignore[arg-type]


def pass_time(path: Pathway, owner: Owner, until: float) -> None:
    while path.wake_at <= until:
        owner.loop.now, path.wake_at = path.wake_at, float("inf")
        path.on_timer(owner.loop.now)
    owner.loop.now = until


_scripts = st.lists(st.integers(-1, 20), max_size=20)


@settings(max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=30), max_size=15), _scripts, st.booleans())
def test_whatever_the_sink_takes_every_byte_arrives_once_and_in_order(
    chunks: list[bytes], script: list[int], is_delayed: bool
) -> None:
    sink = Sink(script)
    path, owner = pathway(sink, *([from_words(Latency, "10ms±9ms")] if is_delayed else []))
    for chunk in chunks:
        path.feed(chunk)
    path.end()
    for second in range(1, 40):
        pass_time(path, owner, float(second))
        path.flush()
    assert b"".join(sink.taken) == b"".join(chunks)
    assert (sink.finished, owner.told) == (1, ["delivered"])
    assert (path.received, path.sent, path.queued) == (len(b"".join(chunks)),) * 2 + (0,)
    assert not path.is_blocked


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=30), max_size=15), st.lists(st.sampled_from([-1, 99]), max_size=20))
def test_messages_leave_whole_or_wait(messages: list[bytes], script: list[int]) -> None:
    sink = Sink(script)
    path, _ = pathway(sink, medium=DATAGRAMS)
    for message in messages:
        path.feed(message)
    for _ in range(40):
        path.flush()
    assert sink.taken == messages


def test_without_toxics_bytes_go_straight_through() -> None:
    sink = Sink()
    path, owner = pathway(sink)
    data = b"as it is"
    path.feed(data)
    assert sink.taken == [data]
    assert path.is_at_rest
    path.end()
    assert (sink.finished, owner.told) == (1, ["delivered"])


def test_a_sink_that_takes_nothing_stops_the_source_and_a_flush_goes_on() -> None:
    sink = Sink([-1] * 1000)
    path, _ = pathway(sink)
    while path.wants_more:
        path.feed(bytes(10_000))
    assert QUEUE <= path.queued < QUEUE + 10_000
    sink.script.clear()
    path.flush()
    assert path.wants_more
    assert path.sent == path.received


def test_datagrams_that_nobody_takes_are_given_up_beyond_the_queue() -> None:
    sink = Sink([-1] * 1000)
    path, _ = pathway(sink, medium=DATAGRAMS)
    for _ in range(300):
        path.feed(bytes(1000))
    assert path.given_up > 0
    assert path.queued <= QUEUE + 1000


def test_a_sink_that_has_gone_is_told() -> None:
    sink = Sink()
    path, owner = pathway(sink)
    sink.is_gone = True
    path.feed(b"x")
    assert owner.told == ["lost"]


def test_a_source_that_was_reset_is_told_behind_what_it_had_said() -> None:
    sink = Sink()
    path, owner = pathway(sink, Latency(latency=100))
    path.feed(b"answer")
    path.fail()
    assert (sink.taken, owner.told) == ([], [])
    pass_time(path, owner, 1.0)
    assert (sink.taken, owner.told) == ([b"answer"], ["close"])


def test_a_close_waits_until_what_came_before_has_been_taken() -> None:
    sink = Sink([-1, 1, -1])
    path, owner = pathway(sink, LimitData(bytes=3))
    path.feed(b"abcdef")
    assert owner.told == []
    path.flush()
    path.flush()
    assert b"".join(sink.taken) == b"abc"
    assert owner.told == ["close"]


def test_over_means_that_nothing_more_leaves() -> None:
    sink = Sink()
    path, owner = pathway(sink, Slicer(average_size=1, delay=1000))
    path.feed(b"abc")
    path.clear()
    pass_time(path, owner, 10.0)
    assert sink.taken == [b"a"]


def test_what_a_toxic_lets_go_all_at_once_is_not_dropped_however_slow_the_sink_is() -> None:
    sink = Sink([-1] * 1000)
    path, owner = pathway(sink, from_words(Stall, "1s"), medium=MESSAGES)
    messages = [bytes([number]) * 10_000 for number in range(100)]
    for message in messages:
        path.feed(message)
    pass_time(path, owner, 2.0)
    assert path.queued == 1_000_000 > QUEUE
    sink.script.clear()
    path.flush()
    assert sink.taken == messages
    assert path.given_up == 0
