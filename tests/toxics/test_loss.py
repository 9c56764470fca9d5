"""loss and gilbert_elliott: the share of losses, and the lengths of their runs."""

from __future__ import annotations

import itertools

import pytest

from bothends.toxics.base import Medium, Toxic
from bothends.toxics.gilbert_elliott import GilbertElliott
from bothends.toxics.loss import Loss
from tests.toxics.path import DATAGRAMS, ToxicPath, messages_of, numbered, numbers

COUNT = 40_000


def lost_flags(toxic: Toxic, seed: int = 1) -> list[bool]:
    """Return for each of COUNT datagrams whether it was lost."""
    arrived = set(numbers(messages_of(ToxicPath(DATAGRAMS, toxic, seed=seed).run(numbered(COUNT)))))
    return [number not in arrived for number in range(COUNT)]


def loss_run_lengths(flags: list[bool]) -> list[int]:
    """Return the lengths of the runs of losses."""
    return [len(list(group)) for is_lost, group in itertools.groupby(flags) if is_lost]


# Independent losses: the standard error of the share is sqrt(p (1 - p) / 40,000), at most 0.0025. Bounds are
# five standard errors.
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_loss_independent_matches_probability(share: float) -> None:
    flags = lost_flags(Loss(probability=share))
    assert sum(flags) / COUNT == pytest.approx(share, abs=5 * (share * (1 - share) / COUNT) ** 0.5)
    found = loss_run_lengths(flags)
    assert sum(found) / len(found) == pytest.approx(1 / (1 - share), rel=0.1)


def test_loss_probability_zero_and_one() -> None:
    assert not any(lost_flags(Loss(probability=0)))
    assert all(lost_flags(Loss(probability=1)))
    assert all(lost_flags(Loss(probability=1, burst=4)))


# The losses of a run of length b count as one sample, so the standard error grows by about sqrt(2 b).
@pytest.mark.parametrize(("share", "burst"), [(0.05, 3), (0.1, 5), (0.3, 10)])
def test_loss_burst_matches_probability_and_run_length(share: float, burst: int) -> None:
    flags = lost_flags(Loss(probability=share, burst=burst))
    error = (share * (1 - share) / COUNT * 2 * burst) ** 0.5
    assert sum(flags) / COUNT == pytest.approx(share, abs=5 * error)
    found = loss_run_lengths(flags)
    assert sum(found) / len(found) == pytest.approx(burst, rel=5 / len(found) ** 0.5)


def test_loss_burst_with_high_probability_lengthens_runs() -> None:
    flags = lost_flags(Loss(probability=0.9, burst=2))
    assert sum(flags) / COUNT == pytest.approx(0.9, abs=0.02)


def test_gilbert_elliott_loss_matches_stationary_distribution() -> None:
    toxic = GilbertElliott(enter=0.02, leave=0.2, bad=0.7, good=0.01)
    expected = (0.2 * 0.01 + 0.02 * 0.7) / 0.22
    error = (expected * (1 - expected) / COUNT * 2 / 0.2) ** 0.5
    assert sum(lost_flags(toxic)) / COUNT == pytest.approx(expected, abs=5 * error)


def test_gilbert_elliott_initial_state_is_stationary() -> None:
    """The first datagram is lost with the long-run probability: within 5 standard errors over 4,000 runs."""
    toxic = GilbertElliott(enter=0.1, leave=0.1)
    firsts = sum(
        not messages_of(ToxicPath(DATAGRAMS, toxic, seed=seed).run(numbered(1))) for seed in range(4000)
    )
    assert firsts / 4000 == pytest.approx(0.5, abs=5 * (0.25 / 4000) ** 0.5)


@pytest.mark.parametrize("toxic", [Loss(probability=0.1), GilbertElliott()])
def test_loss_on_stream_is_rejected_with_hint(toxic: Toxic) -> None:
    assert "bothends wire" in toxic.unsupported_reason(Medium.STREAM)
