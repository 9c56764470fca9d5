"""Properties of every registered toxic: stream bytes and order, limits, determinism."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothends.toxics import registry
from bothends.toxics.attributes import parse_attributes
from bothends.toxics.base import Medium, Signal, Toxic
from bothends.toxics.pipeline import MAX_HELD_BYTES, Pipeline, flip_bits
from tests.toxics.path import DATAGRAMS, MESSAGES, STREAM, Arrivals, ToxicPath, data_of, messages_of, stage

# Attributes that make each toxic act: toxics that neither drop nor change bytes of a stream, and the others.
LOSSLESS = {
    "latency": "20ms±30ms,correlation=50%",
    "bandwidth": "3KB/s",
    "slicer": "7±3,delay=100us",
    "slow_close": "2s",
    "withhold_end": "",
    "stall": "800ms,after=100ms",
    "blackhole": "",
}
LOSSY = {
    "loss": "30%,burst=3",
    "gilbert_elliott": "enter=0.3",
    "duplicate": "30%",
    "reorder": "30%,delay=30ms",
    "corrupt": "bit_errors=1e-2",
    "limit_data": "40",
    "drop_first": "2",
    "noop": "",
    "timeout": "1s",
    "reset_peer": "1s",
}
ALL = LOSSLESS | LOSSY


def toxic(name: str) -> Toxic:
    return parse_attributes(registry.load(name), ALL[name])


def supported(medium: Medium, names: Any = ALL) -> list[str]:
    return [name for name in names if not toxic(name).unsupported_reason(medium)]


def test_toxic_tables_cover_registry() -> None:
    assert set(ALL) == set(registry.TOXICS)
    assert all(
        medium in toxic(name).effects or toxic(name).incompatibility for name in ALL for medium in Medium
    )


_gaps = st.floats(min_value=0, max_value=0.2, allow_nan=False)
_chunks = st.lists(st.tuples(_gaps, st.binary(min_size=1, max_size=60)), max_size=12)


def with_times(chunks: list[tuple[float, bytes]]) -> list[tuple[float, bytes]]:
    """Turn gaps between chunks into times."""
    now, sent = 0.0, []
    for gap, data in chunks:
        now += gap
        sent.append((now, data))
    return sent


def assert_in_order(arrived: Arrivals) -> None:
    assert [at for at, _ in arrived] == sorted(at for at, _ in arrived)


@pytest.mark.parametrize("name", supported(STREAM, LOSSLESS))
@settings(max_examples=30)
@given(chunks=_chunks, seed=st.integers(0, 9))
def test_stream_lossless_toxic_preserves_bytes_and_order(
    name: str, chunks: list[tuple[float, bytes]], seed: int
) -> None:
    sent = with_times(chunks)
    path = ToxicPath(STREAM, toxic(name), seed=seed)
    path.run([*sent, (sent[-1][0] if sent else 0.0, Signal.END)])
    path.arrived += [(2e6, item) for item in path.pipeline.remove(name, 2e6)]
    assert data_of(path.arrived) == b"".join(data for _, data in sent)
    assert path.arrived[-1][1] is Signal.END
    assert sum(item is Signal.END for _, item in path.arrived) == 1
    assert path.pipeline.held == 0
    assert_in_order(path.arrived)


@pytest.mark.parametrize("name", supported(MESSAGES, LOSSLESS))
@settings(max_examples=20)
@given(chunks=_chunks)
def test_messages_lossless_toxic_preserves_messages_and_order(
    name: str, chunks: list[tuple[float, bytes]]
) -> None:
    sent = with_times(chunks)
    path = ToxicPath(MESSAGES, toxic(name))
    path.run(sent)
    path.arrived += [(2e6, item) for item in path.pipeline.remove(name, 2e6)]
    assert messages_of(path.arrived) == [data for _, data in sent]


_change = st.tuples(
    st.sampled_from(["add", "remove", "replace"]), st.sampled_from(supported(STREAM, LOSSLESS)), _gaps
)


@settings(max_examples=150)
@given(chunks=_chunks, changes=st.lists(_change, max_size=8))
def test_stream_toxic_changes_preserve_bytes(
    chunks: list[tuple[float, bytes]], changes: list[tuple[str, str, float]]
) -> None:
    """Toxics are added, removed and changed between the chunks; every byte arrives once and in order."""
    path = ToxicPath(STREAM, toxic("latency"))
    now, active = 0.0, {"latency"}
    for index in range(max(len(chunks), len(changes))):
        if index < len(chunks):
            now += chunks[index][0]
            path.send(now, chunks[index][1])
        if index < len(changes):
            action, name, gap = changes[index]
            now += gap
            path.advance_to(now)
            released: list[Any] = []
            if action == "add" and name not in active:
                active.add(name)
                released = path.pipeline.add(stage(toxic(name), STREAM), now)
            elif action == "remove":
                active.discard(name)
                released = path.pipeline.remove(name, now)
            elif action == "replace" and name in active:
                released = path.pipeline.replace(name, stage(toxic(name), STREAM, 5).state, now)
            path.arrived += [(now, item) for item in released]
    path.send(now, Signal.END)
    path.advance_to(1e6)
    for name in sorted(active):
        path.arrived += [(2e6, item) for item in path.pipeline.remove(name, 2e6)]
        path.advance_to(2e6)
    assert data_of(path.arrived) == b"".join(data for _, data in chunks)
    assert path.arrived[-1][1] is Signal.END
    assert_in_order(path.arrived)


@pytest.mark.parametrize(
    ("name", "medium"), [(name, medium) for medium in Medium for name in supported(medium)]
)
def test_pipeline_same_seed_and_input_is_deterministic(name: str, medium: Medium) -> None:
    sent = [(n / 10, bytes([n]) * 50) for n in range(40)]
    one, two = (ToxicPath(medium, toxic(name), seed=3).run(sent) for _ in range(2))
    assert one == two


def test_stages_use_due_time_when_wakeup_is_late() -> None:
    """Two delays of 10 ms add up to 20 ms even if the loop wakes up to 7 ms late."""
    path = ToxicPath(
        STREAM,
        parse_attributes(registry.load("latency"), "10ms"),
        parse_attributes(registry.load("stall"), "0ms"),
    )
    path.pipeline.add(stage(parse_attributes(registry.load("latency"), "10ms"), STREAM), 0.0)
    path.pipeline.put(0.0, b"x")
    assert path.pipeline.due == pytest.approx(0.010)
    assert path.pipeline.advance(0.017) == []
    assert path.pipeline.due == pytest.approx(0.020)
    assert path.pipeline.advance(0.021) == [b"x"]
    assert path.pipeline.due == math.inf


def test_datagrams_beyond_held_limit_are_dropped_and_counted() -> None:
    path = ToxicPath(DATAGRAMS, parse_attributes(registry.load("latency"), "10s"))
    for _ in range(MAX_HELD_BYTES // 60_000 + 10):
        path.send(0.0, bytes(60_000))
    assert path.pipeline.held <= MAX_HELD_BYTES
    assert path.pipeline.overflowed == 10


def test_stream_held_by_blackhole_is_full() -> None:
    path = ToxicPath(STREAM, parse_attributes(registry.load("blackhole"), ""))
    assert not path.pipeline.is_full
    path.send(0.0, b"x")
    assert path.pipeline.is_full


def test_pipeline_without_stages_passes_items_unchanged() -> None:
    pipeline = Pipeline(STREAM)
    assert pipeline.put(0.0, b"abc") == [b"abc"]
    assert pipeline.put(0.0, Signal.END) == [Signal.END]
    assert (pipeline.due, pipeline.held, pipeline.is_full) == (math.inf, 0, False)


@given(st.binary(min_size=1, max_size=20), st.data())
def test_flip_bits_twice_restores_data(content: bytes, data: Any) -> None:
    bits = tuple(data.draw(st.lists(st.integers(0, len(content) * 8 - 1), max_size=5)))
    assert flip_bits(flip_bits(content, bits), bits) == content
    assert len(flip_bits(content, bits)) == len(content)
