"""A link with a scripted sink: all data arrives once and in order, however much a send accepts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bothends.impair.link import QUEUE_LIMIT, ToxicLink
from bothends.toxics.attributes import parse_attributes
from bothends.toxics.base import Medium, Toxic
from bothends.toxics.latency import Latency
from bothends.toxics.limit_data import LimitData
from bothends.toxics.pipeline import Pipeline
from bothends.toxics.slicer import Slicer
from bothends.toxics.stall import Stall
from tests.toxics.path import DATAGRAMS, MESSAGES, STREAM, stage


class ScriptedSink:
    """Accepts the number of bytes of the next script entry, or -1 to block; after the script, everything."""

    def __init__(self, script: list[int] | None = None) -> None:
        self.script = list(script or ())
        self.received: list[bytes] = []
        self.eof_count = 0
        self.is_gone = False

    def send(self, pieces: list[bytes | memoryview]) -> int:
        if self.is_gone:
            raise BrokenPipeError
        assert not self.eof_count
        data = b"".join(pieces)
        count = min(self.script.pop(0), len(data)) if self.script else len(data)
        if count >= 0:
            self.received.append(data[:count])
        return count

    def send_eof(self) -> None:
        self.eof_count += 1


class FakeLoop:
    """The event-loop methods that a link uses, with a manual clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def update_time(self) -> float:
        return self.now

    def schedule_wakeup(self, target: ToxicLink, when: float) -> None:
        target.wake_at = min(target.wake_at, when)


class RecordingOwner:
    """Records the calls of its link."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.calls: list[str] = []

    def eof_forwarded(self, link: ToxicLink) -> None:
        self.calls.append("delivered")

    def close(self) -> None:
        self.calls.append("close")

    def reset(self) -> None:
        self.calls.append("reset")

    def sink_lost(self, link: ToxicLink) -> None:
        self.calls.append("lost")

    def update_interest(self) -> None:
        pass


def make_link(
    sink: ScriptedSink, *toxics: Toxic, medium: Medium = STREAM
) -> tuple[ToxicLink, RecordingOwner]:
    owner = RecordingOwner()
    pipeline = Pipeline(medium, [stage(each, medium) for each in toxics])
    return ToxicLink(owner, sink, pipeline), owner  # type: ignore[arg-type]


def advance_to(link: ToxicLink, owner: RecordingOwner, until: float) -> None:
    while link.wake_at <= until:
        owner.loop.now, link.wake_at = link.wake_at, float("inf")
        link.on_timer(owner.loop.now)
    owner.loop.now = until


_scripts = st.lists(st.integers(-1, 20), max_size=20)


@settings(max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=30), max_size=15), _scripts, st.booleans())
def test_stream_partial_writes_preserve_bytes_and_order(
    chunks: list[bytes], script: list[int], is_delayed: bool
) -> None:
    sink = ScriptedSink(script)
    link, owner = make_link(sink, *([parse_attributes(Latency, "10ms±9ms")] if is_delayed else []))
    for chunk in chunks:
        link.feed(chunk)
    link.feed_eof()
    for second in range(1, 40):
        advance_to(link, owner, float(second))
        link.flush()
    assert b"".join(sink.received) == b"".join(chunks)
    assert (sink.eof_count, owner.calls) == (1, ["delivered"])
    assert (link.received, link.sent, link.queued) == (len(b"".join(chunks)),) * 2 + (0,)
    assert not link.is_blocked


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=30), max_size=15), st.lists(st.sampled_from([-1, 99]), max_size=20))
def test_datagrams_are_sent_whole_or_queued(messages: list[bytes], script: list[int]) -> None:
    sink = ScriptedSink(script)
    link, _ = make_link(sink, medium=DATAGRAMS)
    for message in messages:
        link.feed(message)
    for _ in range(40):
        link.flush()
    assert sink.received == messages


def test_link_without_toxics_sends_immediately() -> None:
    sink = ScriptedSink()
    link, owner = make_link(sink)
    data = b"unchanged"
    link.feed(data)
    assert sink.received == [data]
    assert link.is_idle
    link.feed_eof()
    assert (sink.eof_count, owner.calls) == (1, ["delivered"])


def test_blocked_sink_stops_source_until_flush() -> None:
    sink = ScriptedSink([-1] * 1000)
    link, _ = make_link(sink)
    while link.wants_more:
        link.feed(bytes(10_000))
    assert QUEUE_LIMIT <= link.queued < QUEUE_LIMIT + 10_000
    sink.script.clear()
    link.flush()
    assert link.wants_more
    assert link.sent == link.received


def test_datagrams_beyond_queue_limit_are_dropped() -> None:
    sink = ScriptedSink([-1] * 1000)
    link, _ = make_link(sink, medium=DATAGRAMS)
    for _ in range(300):
        link.feed(bytes(1000))
    assert link.overflowed > 0
    assert link.queued <= QUEUE_LIMIT + 1000


def test_closed_sink_notifies_owner() -> None:
    sink = ScriptedSink()
    link, owner = make_link(sink)
    sink.is_gone = True
    link.feed(b"x")
    assert owner.calls == ["lost"]


def test_source_reset_is_delivered_after_earlier_data() -> None:
    sink = ScriptedSink()
    link, owner = make_link(sink, Latency(latency=100))
    link.feed(b"answer")
    link.feed_reset()
    assert (sink.received, owner.calls) == ([], [])
    advance_to(link, owner, 1.0)
    assert (sink.received, owner.calls) == ([b"answer"], ["close"])


def test_close_waits_for_queued_data() -> None:
    sink = ScriptedSink([-1, 1, -1])
    link, owner = make_link(sink, LimitData(bytes=3))
    link.feed(b"abcdef")
    assert owner.calls == []
    link.flush()
    link.flush()
    assert b"".join(sink.received) == b"abc"
    assert owner.calls == ["close"]


def test_discarded_link_sends_nothing() -> None:
    sink = ScriptedSink()
    link, owner = make_link(sink, Slicer(average_size=1, delay=1000))
    link.feed(b"abc")
    link.discard()
    advance_to(link, owner, 10.0)
    assert sink.received == [b"a"]


def test_messages_released_together_are_queued_beyond_limit() -> None:
    sink = ScriptedSink([-1] * 1000)
    link, owner = make_link(sink, parse_attributes(Stall, "1s"), medium=MESSAGES)
    messages = [bytes([number]) * 10_000 for number in range(100)]
    for message in messages:
        link.feed(message)
    advance_to(link, owner, 2.0)
    assert link.queued == 1_000_000 > QUEUE_LIMIT
    sink.script.clear()
    link.flush()
    assert sink.received == messages
    assert link.overflowed == 0
