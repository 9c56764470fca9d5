"""loss and gilbert_elliott: how many, and how many in a row."""

from __future__ import annotations

import itertools

import pytest

from bothends.toxics.base import Medium, Toxic
from bothends.toxics.gilbert_elliott import GilbertElliott
from bothends.toxics.loss import Loss
from tests.toxics.path import DATAGRAMS, Path, messages_of, numbered, numbers

COUNT = 40_000


def lost(toxic: Toxic, seed: int = 1) -> list[bool]:
    """Of each of COUNT datagrams, whether it was lost."""
    arrived = set(numbers(messages_of(Path(DATAGRAMS, toxic, seed=seed).run(numbered(COUNT)))))
    return [number not in arrived for number in range(COUNT)]


def runs(flags: list[bool]) -> list[int]:
    """The lengths of the runs of losses."""
    return [len(list(group)) for is_lost, group in itertools.groupby(flags) if is_lost]


# Independent losses: the share's standard error is sqrt(p (1 - p) / 40,000), at most 0.0025. Five of these.
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_a_share_is_lost_each_on_its_own(share: float) -> None:
    flags = lost(Loss(probability=share))
    assert sum(flags) / COUNT == pytest.approx(share, abs=5 * (share * (1 - share) / COUNT) ** 0.5)
    found = runs(flags)
    assert sum(found) / len(found) == pytest.approx(1 / (1 - share), rel=0.1)


def test_nothing_and_everything() -> None:
    assert not any(lost(Loss(probability=0)))
    assert all(lost(Loss(probability=1)))
    assert all(lost(Loss(probability=1, burst=4)))


# In runs of length b the losses of a run count as one: the share's error grows by about sqrt(2 b).
@pytest.mark.parametrize(("share", "burst"), [(0.05, 3), (0.1, 5), (0.3, 10)])
def test_in_runs_share_and_length_are_as_asked(share: float, burst: int) -> None:
    flags = lost(Loss(probability=share, burst=burst))
    error = (share * (1 - share) / COUNT * 2 * burst) ** 0.5
    assert sum(flags) / COUNT == pytest.approx(share, abs=5 * error)
    found = runs(flags)
    assert sum(found) / len(found) == pytest.approx(burst, rel=5 / len(found) ** 0.5)


def test_runs_grow_where_the_share_leaves_no_room_between_them() -> None:
    flags = lost(Loss(probability=0.9, burst=2))
    assert sum(flags) / COUNT == pytest.approx(0.9, abs=0.02)


def test_gilbert_elliott_has_the_loss_of_its_stationary_distribution() -> None:
    toxic = GilbertElliott(enter=0.02, leave=0.2, bad=0.7, good=0.01)
    expected = (0.2 * 0.01 + 0.02 * 0.7) / 0.22
    error = (expected * (1 - expected) / COUNT * 2 / 0.2) ** 0.5
    assert sum(lost(toxic)) / COUNT == pytest.approx(expected, abs=5 * error)


def test_a_short_run_is_not_biased_to_the_good_state() -> None:
    """The first datagram too is lost with the share of the long run: of 4,000 beginnings, within 5 errors."""
    toxic = GilbertElliott(enter=0.1, leave=0.1)
    firsts = sum(not messages_of(Path(DATAGRAMS, toxic, seed=seed).run(numbered(1))) for seed in range(4000))
    assert firsts / 4000 == pytest.approx(0.5, abs=5 * (0.25 / 4000) ** 0.5)


@pytest.mark.parametrize("toxic", [Loss(probability=0.1), GilbertElliott()])
def test_on_a_stream_it_is_refused_and_says_where_it_can_be_had(toxic: Toxic) -> None:
    assert "bothends wire" in toxic.objection(Medium.STREAM)
