"""latency: how much later, and how that is distributed."""

from __future__ import annotations

import statistics

import pytest

from bothends.toxics.latency import Latency
from tests.toxics.path import DATAGRAMS, PACKETS, STREAM, Path, delays, messages_of, numbered, numbers


def measured(toxic: Latency, count: int = 20_000) -> list[float]:
    """Delays in milliseconds, of messages so far apart that none waits for another."""
    said = numbered(count, spacing=10.0)
    return [delay * 1000 for delay in delays(said, Path(PACKETS, toxic).run(said))]


def test_without_jitter_each_is_late_by_the_same() -> None:
    assert measured(Latency(latency=50), 100) == pytest.approx([50] * 100)


def test_no_latency_is_none() -> None:
    assert measured(Latency(), 10) == pytest.approx([0] * 10)


# Of 20,000 the mean's standard error is its deviation / 141, and that of the deviation about deviation / 200
# (Pareto's fourth moment is infinite, so its deviation is measured by quartiles): bounds of five of these.
@pytest.mark.parametrize("correlation", [0.0, 0.5])
@pytest.mark.parametrize(("distribution", "deviation"), [("uniform", 20 / 3**0.5), ("normal", 20.0)])
def test_jitter_has_the_mean_and_spread_that_were_asked_for(
    distribution: str, deviation: float, correlation: float
) -> None:
    """Correlation, unlike netem's, leaves the distribution as it is."""
    toxic = Latency(latency=200, jitter=20, distribution=distribution, correlation=correlation)
    found = measured(toxic)
    # With correlation c between neighbours the mean's error grows by sqrt((1 + c) / (1 - c)).
    error = deviation / 141 * ((1 + correlation) / (1 - correlation)) ** 0.5
    assert statistics.fmean(found) == pytest.approx(200, abs=5 * error)
    assert statistics.stdev(found) == pytest.approx(deviation, rel=0.05)
    if distribution == "uniform":
        assert 180 <= min(found) < 181
        assert 219 < max(found) <= 220


def test_pareto_has_its_quartiles_and_a_long_tail() -> None:
    found = sorted(measured(Latency(latency=200, jitter=20, distribution="pareto")))
    # Quantiles of the Pareto distribution with exponent 3, brought to mean 0 and deviation 1.
    for share in (0.25, 0.5, 0.75, 0.99):
        expected = 200 + 20 * ((1 - share) ** (-1 / 3) - 1.5) / 0.75**0.5
        assert found[int(share * len(found))] == pytest.approx(expected, rel=0.03)
    assert statistics.fmean(found) == pytest.approx(200, abs=1)
    assert found[-1] > 200 + 20 * 8


def test_neighbours_are_as_alike_as_asked() -> None:
    found = measured(Latency(latency=200, jitter=20, distribution="normal", correlation=0.8))
    assert statistics.correlation(found, found[1:] + found[:1]) == pytest.approx(0.8, abs=0.03)


def test_a_delay_is_never_negative() -> None:
    assert min(measured(Latency(latency=5, jitter=50), 2000)) == 0


def test_jitter_lets_datagrams_overtake_each_other_unless_told_otherwise() -> None:
    said = numbered(500)
    loose = numbers(messages_of(Path(DATAGRAMS, Latency(latency=20, jitter=10)).run(said)))
    ordered = numbers(messages_of(Path(DATAGRAMS, Latency(latency=20, jitter=10, ordered=1)).run(said)))
    assert sorted(loose) == ordered == list(range(500))
    assert loose != ordered


def test_a_stream_waits_for_its_slowest() -> None:
    said = numbered(500)
    assert numbers(messages_of(Path(STREAM, Latency(latency=20, jitter=10)).run(said))) == list(range(500))
