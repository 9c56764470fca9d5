"""What holds for every toxic of the registry: bytes and order of a stream, bounds, the same again."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothends.toxics import registry
from bothends.toxics.attributes import from_words
from bothends.toxics.base import Medium, Signal, Toxic
from bothends.toxics.pipeline import MOST_HELD, Pipeline, flipped
from tests.toxics.path import DATAGRAMS, MESSAGES, STREAM, Arrivals, Path, data_of, messages_of, stage

# Each toxic with what makes it act: those that neither lose nor change anything of a stream, and the others.
KEEPING = {
    "latency": "20ms±30ms,correlation=50%",
    "bandwidth": "3KB/s",
    "slicer": "7±3,delay=100us",
    "slow_close": "2s",
    "withhold_end": "",
    "stall": "800ms,after=100ms",
    "blackhole": "",
}
LOSING = {
    "loss": "30%,burst=3",
    "gilbert_elliott": "enter=0.3",
    "duplicate": "30%",
    "reorder": "30%,delay=30ms",
    "corrupt": "bit_errors=1e-2",
    "limit_data": "40",
    "drop_first": "2",
    "timeout": "1s",
    "reset_peer": "1s",
}
ALL = KEEPING | LOSING


def toxic(name: str) -> Toxic:
    return from_words(registry.load(name), ALL[name])


def fitting(medium: Medium, names: Any = ALL) -> list[str]:
    return [name for name in names if not toxic(name).objection(medium)]


def test_every_toxic_is_tried() -> None:
    assert set(ALL) == set(registry.TOXICS)
    assert all(medium in toxic(name).meaning or toxic(name).refusal for name in ALL for medium in Medium)


_gaps = st.floats(min_value=0, max_value=0.2, allow_nan=False)
_chunks = st.lists(st.tuples(_gaps, st.binary(min_size=1, max_size=60)), max_size=12)


def timed(chunks: list[tuple[float, bytes]]) -> list[tuple[float, bytes]]:
    """From gaps to times."""
    now, said = 0.0, []
    for gap, data in chunks:
        now += gap
        said.append((now, data))
    return said


def checked_order(arrived: Arrivals) -> None:
    assert [at for at, _ in arrived] == sorted(at for at, _ in arrived)


@pytest.mark.parametrize("name", fitting(STREAM, KEEPING))
@settings(max_examples=30)
@given(chunks=_chunks, seed=st.integers(0, 9))
def test_a_stream_keeps_its_bytes_and_their_order(
    name: str, chunks: list[tuple[float, bytes]], seed: int
) -> None:
    said = timed(chunks)
    path = Path(STREAM, toxic(name), seed=seed)
    path.run([*said, (said[-1][0] if said else 0.0, Signal.END)])
    path.arrived += [(2e6, item) for item in path.pipeline.remove(name, 2e6)]
    assert data_of(path.arrived) == b"".join(data for _, data in said)
    assert path.arrived[-1][1] is Signal.END
    assert sum(item is Signal.END for _, item in path.arrived) == 1
    assert path.pipeline.held == 0
    checked_order(path.arrived)


@pytest.mark.parametrize("name", fitting(MESSAGES, KEEPING))
@settings(max_examples=20)
@given(chunks=_chunks)
def test_messages_of_a_connection_stay_whole_and_in_order(
    name: str, chunks: list[tuple[float, bytes]]
) -> None:
    said = timed(chunks)
    path = Path(MESSAGES, toxic(name))
    path.run(said)
    path.arrived += [(2e6, item) for item in path.pipeline.remove(name, 2e6)]
    assert messages_of(path.arrived) == [data for _, data in said]


_change = st.tuples(
    st.sampled_from(["add", "remove", "replace"]), st.sampled_from(fitting(STREAM, KEEPING)), _gaps
)


@settings(max_examples=150)
@given(chunks=_chunks, changes=st.lists(_change, max_size=8))
def test_no_change_of_toxics_costs_a_stream_a_byte(
    chunks: list[tuple[float, bytes]], changes: list[tuple[str, str, float]]
) -> None:
    """Toxics come, go and are changed between the chunks, and all is there in the end, once and in order."""
    path = Path(STREAM, toxic("latency"))
    now, here = 0.0, {"latency"}
    for index in range(max(len(chunks), len(changes))):
        if index < len(chunks):
            now += chunks[index][0]
            path.say(now, chunks[index][1])
        if index < len(changes):
            what, name, gap = changes[index]
            now += gap
            path.until(now)
            left: list[Any] = []
            if what == "add" and name not in here:
                here.add(name)
                left = path.pipeline.add(stage(toxic(name), STREAM), now)
            elif what == "remove":
                here.discard(name)
                left = path.pipeline.remove(name, now)
            elif what == "replace" and name in here:
                left = path.pipeline.replace(name, stage(toxic(name), STREAM, 5).behaviour, now)
            path.arrived += [(now, item) for item in left]
    path.say(now, Signal.END)
    path.until(1e6)
    for name in sorted(here):
        path.arrived += [(2e6, item) for item in path.pipeline.remove(name, 2e6)]
        path.until(2e6)
    assert data_of(path.arrived) == b"".join(data for _, data in chunks)
    assert path.arrived[-1][1] is Signal.END
    checked_order(path.arrived)


@pytest.mark.parametrize(
    ("name", "medium"), [(name, medium) for medium in Medium for name in fitting(medium)]
)
def test_the_same_seed_and_input_give_the_same(name: str, medium: Medium) -> None:
    said = [(n / 10, bytes([n]) * 50) for n in range(40)]
    one, two = (Path(medium, toxic(name), seed=3).run(said) for _ in range(2))
    assert one == two


def test_stages_act_at_the_moment_that_was_due_not_when_someone_woke() -> None:
    """Two delays of 10 ms are 20, also where the loop comes 7 ms late each time."""
    path = Path(
        STREAM, from_words(registry.load("latency"), "10ms"), from_words(registry.load("stall"), "0ms")
    )
    path.pipeline.add(stage(from_words(registry.load("latency"), "10ms"), STREAM), 0.0)
    path.pipeline.put(0.0, b"x")
    assert path.pipeline.due == pytest.approx(0.010)
    assert path.pipeline.advance(0.017) == []
    assert path.pipeline.due == pytest.approx(0.020)
    assert path.pipeline.advance(0.021) == [b"x"]
    assert path.pipeline.due == math.inf


def test_datagrams_beyond_what_is_held_at_most_are_dropped_and_counted() -> None:
    path = Path(DATAGRAMS, from_words(registry.load("latency"), "10s"))
    for _ in range(MOST_HELD // 60_000 + 10):
        path.say(0.0, bytes(60_000))
    assert path.pipeline.held <= MOST_HELD
    assert path.pipeline.overflowed == 10


def test_a_stream_that_is_held_asks_its_sender_to_wait() -> None:
    path = Path(STREAM, from_words(registry.load("blackhole"), ""))
    assert not path.pipeline.is_full
    path.say(0.0, b"x")
    assert path.pipeline.is_full


def test_a_path_without_toxics_changes_nothing() -> None:
    pipeline = Pipeline(STREAM)
    assert pipeline.put(0.0, b"abc") == [b"abc"]
    assert pipeline.put(0.0, Signal.END) == [Signal.END]
    assert (pipeline.due, pipeline.held, pipeline.is_full) == (math.inf, 0, False)


@given(st.binary(min_size=1, max_size=20), st.data())
def test_flipping_twice_is_flipping_never(data: bytes, more: Any) -> None:
    bits = tuple(more.draw(st.lists(st.integers(0, len(data) * 8 - 1), max_size=5)))
    assert flipped(flipped(data, bits), bits) == data
    assert len(flipped(data, bits)) == len(data)
