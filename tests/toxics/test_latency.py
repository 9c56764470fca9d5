"""latency: size, distribution and correlation of the delays."""

from __future__ import annotations

import statistics

import pytest

from bothends.toxics.latency import Latency
from tests.toxics.path import (
    DATAGRAMS,
    PACKETS,
    STREAM,
    ToxicPath,
    delays,
    messages_of,
    numbered,
    numbers,
    stage,
)


def measured(toxic: Latency, count: int = 20_000) -> list[float]:
    """Return the delays in milliseconds of messages spaced so far apart that none waits for another."""
    sent = numbered(count, spacing=10.0)
    return [delay * 1000 for delay in delays(sent, ToxicPath(PACKETS, toxic).run(sent))]


def test_latency_without_jitter_delays_all_equally() -> None:
    assert measured(Latency(latency=50), 100) == pytest.approx([50] * 100)


@pytest.mark.parametrize(
    ("before", "after", "arrives"), [(10_000, 0, 1.0), (10_000, 500, 1.5), (0, 500, 1.5)]
)
def test_changed_latency_applies_to_new_data_of_a_stream(before: float, after: float, arrives: float) -> None:
    path = ToxicPath(STREAM, Latency(latency=before))
    path.send(0.0, b"old")
    new_state = stage(Latency(latency=after), STREAM).state
    path.arrived += [(0.5, item) for item in path.pipeline.replace("latency", new_state, 0.5)]
    path.send(1.0, b"new")
    path.advance_to(100.0)
    assert path.arrived == [(0.0 if before == 0 else 0.5, b"old"), (arrives, b"new")]


def test_latency_default_adds_no_delay() -> None:
    assert measured(Latency(), 10) == pytest.approx([0] * 10)


# For 20,000 samples the standard error of the mean is deviation / 141, and that of the deviation about
# deviation / 200. Bounds are five standard errors. (Pareto's fourth moment is infinite, so that distribution
# is tested by its quantiles instead.)
@pytest.mark.parametrize("correlation", [0.0, 0.5])
@pytest.mark.parametrize(("distribution", "deviation"), [("uniform", 20 / 3**0.5), ("normal", 20.0)])
def test_jitter_distribution_has_requested_mean_and_deviation(
    distribution: str, deviation: float, correlation: float
) -> None:
    """Correlation does not change the distribution, unlike netem's."""
    toxic = Latency(latency=200, jitter=20, distribution=distribution, correlation=correlation)
    found = measured(toxic)
    # With correlation c between neighbours the mean's error grows by sqrt((1 + c) / (1 - c)).
    error = deviation / 141 * ((1 + correlation) / (1 - correlation)) ** 0.5
    assert statistics.fmean(found) == pytest.approx(200, abs=5 * error)
    assert statistics.stdev(found) == pytest.approx(deviation, rel=0.05)
    if distribution == "uniform":
        assert 180 <= min(found) < 181
        assert 219 < max(found) <= 220


def test_pareto_jitter_has_expected_quantiles_and_long_tail() -> None:
    found = sorted(measured(Latency(latency=200, jitter=20, distribution="pareto")))
    # Quantiles of the Pareto distribution with exponent 3, scaled to mean 0 and deviation 1.
    for share in (0.25, 0.5, 0.75, 0.99):
        expected = 200 + 20 * ((1 - share) ** (-1 / 3) - 1.5) / 0.75**0.5
        assert found[int(share * len(found))] == pytest.approx(expected, rel=0.03)
    assert statistics.fmean(found) == pytest.approx(200, abs=1)
    assert found[-1] > 200 + 20 * 8


def test_jitter_correlation_matches_requested() -> None:
    found = measured(Latency(latency=200, jitter=20, distribution="normal", correlation=0.8))
    assert statistics.correlation(found, found[1:] + found[:1]) == pytest.approx(0.8, abs=0.03)


def test_jitter_larger_than_latency_clamps_delay_to_zero() -> None:
    assert min(measured(Latency(latency=5, jitter=50), 2000)) == 0


def test_jitter_reorders_datagrams_unless_ordered() -> None:
    sent = numbered(500)
    loose = numbers(messages_of(ToxicPath(DATAGRAMS, Latency(latency=20, jitter=10)).run(sent)))
    ordered = numbers(messages_of(ToxicPath(DATAGRAMS, Latency(latency=20, jitter=10, ordered=1)).run(sent)))
    assert sorted(loose) == ordered == list(range(500))
    assert loose != ordered


def test_jitter_on_stream_preserves_order() -> None:
    sent = numbered(500)
    assert numbers(messages_of(ToxicPath(STREAM, Latency(latency=20, jitter=10)).run(sent))) == list(
        range(500)
    )
