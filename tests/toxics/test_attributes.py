"""Parsing and formatting of toxic attributes: the API's JSON, and the short form."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.errors import ToxicError, UnknownName
from bothends.toxics import registry
from bothends.toxics.attributes import from_json, parse_attributes, parse_duration, to_json
from bothends.toxics.bandwidth import Bandwidth
from bothends.toxics.base import Toxic
from bothends.toxics.blackhole import Blackhole
from bothends.toxics.latency import Latency
from bothends.toxics.loss import Loss
from bothends.toxics.slicer import Slicer


@pytest.mark.parametrize(
    ("kind", "text", "toxic"),
    [
        (Latency, "50ms", Latency(latency=50)),
        (Latency, "50ms±10ms", Latency(latency=50, jitter=10)),
        (Latency, "1.5s+-0.5s", Latency(latency=1500, jitter=500)),
        (Latency, "1s+/-100ms,distribution=normal", Latency(latency=1000, jitter=100, distribution="normal")),
        (Latency, "latency=20ms,correlation=25%", Latency(latency=20, correlation=0.25)),
        (Latency, "", Latency()),
        (Bandwidth, "10mbit", Bandwidth(rate=1250)),
        (Bandwidth, "500KB/s,queue=64KiB", Bandwidth(rate=500, queue=65536)),
        (Loss, "10%,burst=4", Loss(probability=0.1, burst=4)),
        (Loss, "0.1", Loss(probability=0.1)),
        (Slicer, "64±16,delay=2ms", Slicer(average_size=64, size_variation=16, delay=2000)),
        (Blackhole, "", Blackhole()),
    ],
)
def test_parse_attributes_short_form(kind: type[Toxic], text: str, toxic: Toxic) -> None:
    assert parse_attributes(kind, text) == toxic


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (Latency, "fifty", "a time such as 50ms"),
        (Latency, "50", "a time such as 50ms"),
        (Latency, "50mbit", "a time such as 50ms"),
        (Latency, "50ms±10ms±5ms", "unexpected '50ms±10ms±5ms'; use LATENCY±JITTER[,NAME=VALUE...]"),
        (Latency, "50ms,10ms", "unexpected '10ms'"),
        (Latency, "50ms,jiter=1ms", "did you mean jitter?"),
        (Latency, "50ms,distribution=gauss", "uniform, normal or pareto"),
        (Latency, "-5ms", "a time such as"),
        (Loss, "110%", "at most 1"),
        (Loss, "10%,burst=0", "at least 1"),
        (Loss, "10%,burst=1.5", "a whole number"),
        (Bandwidth, "fast", "10mbit"),
        (Blackhole, "x", "unexpected 'x'"),
        (Blackhole, "x=1", "it has no attributes"),
    ],
)
def test_parse_attributes_invalid_text_raises_toxic_error(kind: type[Toxic], text: str, message: str) -> None:
    with pytest.raises(ToxicError) as caught:
        parse_attributes(kind, text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "toxic"),
    [
        ({"latency": 1000, "jitter": 5}, Latency(latency=1000, jitter=5)),
        ({"latency": None}, Latency()),
        ({}, Latency()),
    ],
)
def test_from_json_attributes(given: dict[str, Any], toxic: Toxic) -> None:
    assert from_json(Latency, given) == toxic


@pytest.mark.parametrize("value", ["50ms", True, -1, float("nan"), float("inf"), [], {}])
def test_from_json_invalid_value_raises_toxic_error(value: Any) -> None:
    with pytest.raises(ToxicError):
        from_json(Latency, {"latency": value})


def test_from_json_with_base_keeps_missing_attributes() -> None:
    assert from_json(Latency, {"jitter": 7}, Latency(latency=100, jitter=5)) == Latency(latency=100, jitter=7)


def test_to_json_shows_toxiproxy_attributes_and_non_default_extensions() -> None:
    assert to_json(Latency(latency=5)) == {"latency": 5, "jitter": 0}
    assert to_json(Latency(correlation=0.5)) == {"latency": 0, "jitter": 0, "correlation": 0.5}
    assert to_json(Loss()) == {}


@pytest.mark.parametrize("name", registry.TOXICS)
def test_json_round_trip_of_every_toxic(name: str) -> None:
    kind = registry.load(name)
    toxic = kind()
    assert kind.type == name
    assert from_json(kind, to_json(toxic)) == toxic


def test_load_unknown_toxic_suggests_nearest_name() -> None:
    with pytest.raises(UnknownName) as caught:
        registry.load("latenzy")
    assert caught.value.nearest == "latency"


@given(st.text(max_size=20))
def test_parse_attributes_any_text_raises_only_toxic_error(text: str) -> None:
    for kind in (Latency, Bandwidth, Loss, Blackhole):
        with contextlib.suppress(ToxicError):
            assert from_json(kind, to_json(parse_attributes(kind, text))) is not None


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("50ms", 0.05), ("2m", 120), ("5", None), ("s", None)]
)
def test_parse_duration(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds
