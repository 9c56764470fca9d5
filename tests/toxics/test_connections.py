"""Toxics that cut, hold, close or reset a connection: slicer, limit_data, timeout, blackhole and others."""

from __future__ import annotations

from random import Random

import pytest

from bothends.toxics.base import LinkContext, Medium, Signal
from bothends.toxics.blackhole import Blackhole
from bothends.toxics.drop_first import DropFirst
from bothends.toxics.latency import Latency
from bothends.toxics.limit_data import LimitData
from bothends.toxics.reset_peer import ResetPeer
from bothends.toxics.slicer import Slicer
from bothends.toxics.slow_close import SlowClose
from bothends.toxics.stall import Stall
from bothends.toxics.timeout import Timeout
from bothends.toxics.withhold_end import WithholdEnd
from tests.toxics.path import (
    DATAGRAMS,
    MESSAGES,
    STREAM,
    ToxicPath,
    data_of,
    messages_of,
    numbered,
    numbers,
    signals_of,
)


def test_slicer_splits_into_requested_sizes_and_delays() -> None:
    arrived = ToxicPath(STREAM, Slicer(average_size=10, size_variation=3, delay=500)).run(
        [(1.0, bytes(1000))]
    )
    sizes = [len(each) for each in messages_of(arrived)]
    assert sum(sizes) == 1000
    assert set(sizes[:-1]) <= set(range(7, 14))
    assert len(set(sizes)) > 3
    for number, (at, _) in enumerate(arrived):
        assert at == pytest.approx(1.0 + number * 0.0005)


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_limit_data_stream_passes_exact_bytes_and_closes(cut: int) -> None:
    sent = [(start / 1000, bytes(cut)) for start in range(0, 300, cut)]
    arrived = ToxicPath(STREAM, LimitData(bytes=100)).run(sent)
    assert len(data_of(arrived)) == 100
    assert [signal for _, signal in signals_of(arrived)] == [Signal.CLOSE]
    assert arrived[-1][1] is Signal.CLOSE


def test_limit_data_passes_only_whole_messages() -> None:
    sent = numbered(10, size=30)
    assert numbers(messages_of(ToxicPath(MESSAGES, LimitData(bytes=100)).run(sent))) == [0, 1, 2]
    assert numbers(messages_of(ToxicPath(DATAGRAMS, LimitData(bytes=90)).run(sent))) == [0, 1, 2]
    assert not signals_of(ToxicPath(DATAGRAMS, LimitData(bytes=100)).run(sent))


def test_limit_data_changed_limit_keeps_count() -> None:
    path = ToxicPath(STREAM, LimitData(bytes=100))
    path.send(0.0, bytes(60))
    link = LinkContext(STREAM, Random(1))
    assert path.pipeline.replace("limit_data", LimitData(bytes=80).new_state(link), 1.0) == []
    assert len(data_of(path.run([(2.0, bytes(60))]))) == 80
    lowered = ToxicPath(STREAM, LimitData(bytes=100))
    lowered.send(0.0, bytes(60))
    lowered.pipeline.replace("limit_data", LimitData(bytes=10).new_state(link), 1.0)
    assert [item for _, item in lowered.run([(2.0, b"x")])] == [bytes(60), Signal.CLOSE]


def test_close_is_delivered_after_earlier_bytes() -> None:
    arrived = ToxicPath(STREAM, LimitData(bytes=3), Latency(latency=100)).run([(0.0, b"abcdef")])
    assert [item for _, item in arrived] == [b"abc", Signal.CLOSE]
    assert [at for at, _ in arrived] == pytest.approx([0.1, 0.1])


def test_slow_close_delays_only_end() -> None:
    arrived = ToxicPath(STREAM, SlowClose(delay=2000)).run([(1.0, b"x"), (1.5, Signal.END)])
    assert arrived == [(1.0, b"x"), (3.5, Signal.END)]


def test_withhold_end_releases_end_when_removed() -> None:
    path = ToxicPath(STREAM, WithholdEnd())
    assert path.run([(1.0, b"x"), (1.5, Signal.END)]) == [(1.0, b"x")]
    assert path.pipeline.remove("withhold_end", 9.0) == [Signal.END]


def test_timeout_drops_data_and_closes() -> None:
    arrived = ToxicPath(STREAM, Timeout(timeout=2000)).run([(0.5, b"x"), (3.0, b"y")])
    assert arrived == [(2.0, Signal.CLOSE)]


def test_timeout_zero_never_closes_but_closes_on_removal_after_loss() -> None:
    path = ToxicPath(STREAM, Timeout())
    assert path.run([(0.5, b"x")]) == []
    assert path.pipeline.remove("timeout", 9.0) == [Signal.CLOSE]
    untouched = ToxicPath(STREAM, Timeout())
    assert untouched.pipeline.remove("timeout", 9.0) == []


def test_timeout_removed_early_does_not_close() -> None:
    path = ToxicPath(STREAM, Timeout(timeout=2000))
    assert path.pipeline.remove("timeout", 1.0) == []
    assert path.run([(3.0, b"x")]) == [(3.0, b"x")]


def test_blackhole_stream_releases_bytes_and_end_when_removed() -> None:
    path = ToxicPath(STREAM, Blackhole())
    assert path.run([(0.0, b"one"), (1.0, b"two"), (2.0, Signal.END)]) == []
    assert path.pipeline.remove("blackhole", 9.0) == [b"one", b"two", Signal.END]


def test_blackhole_drops_datagrams() -> None:
    path = ToxicPath(DATAGRAMS, Blackhole())
    assert path.run([(0.0, b"one")]) == []
    assert path.pipeline.remove("blackhole", 9.0) == []


@pytest.mark.parametrize("medium", [STREAM, DATAGRAMS])
def test_stall_delays_data_until_its_end(medium: Medium) -> None:
    sent = [(at, b"%d" % at) for at in (0.0, 1.0, 2.0, 3.0, 5.0)]
    arrived = ToxicPath(medium, Stall(after=1000, duration=3000)).run(sent)
    assert [at for at, _ in arrived] == [0.0, 4.0, 4.0, 4.0, 5.0]
    assert data_of(arrived) == b"01235"


def test_reset_peer_resets_on_first_data_or_end() -> None:
    assert ToxicPath(STREAM, ResetPeer()).run([(1.0, b"x")]) == [(1.0, Signal.RESET)]
    assert ToxicPath(STREAM, ResetPeer(timeout=500)).run([(1.0, b"x"), (1.2, b"y")]) == [(1.5, Signal.RESET)]
    assert ToxicPath(STREAM, ResetPeer()).run([(1.0, Signal.END)]) == [(1.0, Signal.RESET)]
    assert ToxicPath(STREAM, ResetPeer()).run([]) == []


def test_reset_overtakes_delayed_data() -> None:
    arrived = ToxicPath(STREAM, ResetPeer(timeout=100), Latency(latency=1000)).run([(0.0, b"x")])
    assert [item for _, item in arrived] == [Signal.RESET]
    assert arrived[0][0] == pytest.approx(0.1)


def test_drop_first_drops_first_datagrams() -> None:
    assert numbers(messages_of(ToxicPath(DATAGRAMS, DropFirst(count=3)).run(numbered(6)))) == [3, 4, 5]


@pytest.mark.parametrize(("ordinal", "fails"), [(0, False), (1, True), (2, True), (3, False)])
def test_drop_first_resets_only_first_new_connections(ordinal: int, fails: bool) -> None:
    arrived = ToxicPath(STREAM, DropFirst(count=2), ordinal=ordinal).run([])
    assert arrived == ([(0.0, Signal.RESET)] if fails else [])
