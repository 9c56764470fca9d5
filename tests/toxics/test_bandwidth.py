"""bandwidth: the rate is never exceeded, and the queue is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothends.toxics.bandwidth import Bandwidth
from bothends.toxics.base import Medium
from tests.toxics.path import DATAGRAMS, STREAM, ToxicPath, data_of, messages_of, numbered

_arrivals = st.lists(
    st.tuples(st.floats(0, 0.3, allow_nan=False), st.integers(0, 3000)), min_size=1, max_size=40
)


@settings(max_examples=150)
@given(arrivals=_arrivals, burst=st.sampled_from([0, 500, 5000]))
def test_bandwidth_any_interval_stays_within_burst_and_rate(
    arrivals: list[tuple[float, int]], burst: int
) -> None:
    rate = 10_000
    now, sent = 0.0, []
    for gap, size in arrivals:
        now += gap
        sent.append((now, bytes(size)))
    arrived = ToxicPath(DATAGRAMS, Bandwidth(rate=rate // 1000, burst=burst, queue=10**9)).run(sent)
    sizes = [(at, len(item)) for at, item in arrived if isinstance(item, bytes)]
    assert len(sizes) == len(sent)
    for first in range(len(sizes)):
        total = 0
        for last in range(first, len(sizes)):
            total += sizes[last][1]
            allowed = max(burst, sizes[first][1]) + rate * (sizes[last][0] - sizes[first][0])
            assert total <= allowed + 1e-3


@pytest.mark.parametrize("medium", [STREAM, DATAGRAMS])
def test_bandwidth_burst_leaves_at_once_after_an_idle_period(medium: Medium) -> None:
    path = ToxicPath(medium, Bandwidth(rate=1, burst=500, queue=2**20))
    arrived = path.run([(10.0, bytes(100))] * 10)
    at_once = [item for at, item in arrived if at < 10.01]
    assert len(data_of([(10.0, item) for item in at_once])) == 500
    assert arrived[-1][0] == pytest.approx(10.5)


@pytest.mark.parametrize("medium", [STREAM, DATAGRAMS])
def test_bandwidth_long_transfer_takes_bytes_over_rate(medium: str) -> None:
    sent = [(0.0, bytes(1000))] * 1000
    arrived = ToxicPath(STREAM if medium == "stream" else DATAGRAMS, Bandwidth(rate=100, queue=2**30)).run(
        sent
    )
    assert len(data_of(arrived)) == 1_000_000
    assert arrived[-1][0] == pytest.approx(10.0)


def test_bandwidth_full_queue_tail_drops_datagrams() -> None:
    arrived = ToxicPath(DATAGRAMS, Bandwidth(rate=1, queue=5000)).run(numbered(100, spacing=0.0, size=1000))
    assert len(messages_of(arrived)) == 5
    assert messages_of(arrived) == [data for _, data in numbered(5, size=1000)]


def test_bandwidth_datagram_larger_than_empty_queue_passes() -> None:
    assert len(ToxicPath(DATAGRAMS, Bandwidth(rate=1, queue=10)).run([(0.0, bytes(1000))])) == 1


def test_bandwidth_stream_applies_backpressure_without_loss() -> None:
    path = ToxicPath(STREAM, Bandwidth(rate=1, queue=5000))
    path.send(0.0, bytes(5000))
    assert not path.pipeline.is_full
    path.send(0.0, bytes(5000))
    assert path.pipeline.is_full
    path.advance_to(5.1)
    assert not path.pipeline.is_full
    path.advance_to(1e6)
    assert len(data_of(path.arrived)) == 10_000


def test_bandwidth_stream_chunk_is_sent_in_parts() -> None:
    arrived = ToxicPath(STREAM, Bandwidth(rate=10)).run([(0.0, bytes(10_000))])
    assert len(arrived) == 50
    assert arrived[0][0] == pytest.approx(0.02)


def test_bandwidth_zero_rate_is_unlimited() -> None:
    assert ToxicPath(DATAGRAMS, Bandwidth()).run([(0.0, b"x")]) == [(0.0, b"x")]
