"""Who may come in, by address; and how fast they are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import Address
from bothends.engines.access_control import Gate, parse_network
from bothends.engines.base import Limits
from bothends.engines.rate_limit import Pace
from bothends.events import Why


def inet(host: str) -> Address:
    return Address("inet6" if ":" in host else "inet", host, 5000)


def test_without_limits_everybody_may() -> None:
    gate = Gate(Limits())
    assert gate.refusal(inet("192.0.2.1")) is None
    assert gate.refusal(Address("unix", "@me")) is None


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", None),
        ("192.0.2.66", "its network 192.0.2.64/26 is denied"),
        ("198.51.100.1", "its network is not among those allowed"),
        ("2001:db8::1", None),
        ("fe80::1%eth0", "its network is not among those allowed"),
    ],
)
def test_denied_wins_over_allowed_and_what_is_not_allowed_stays_out(host: str, reason: str | None) -> None:
    limits = Limits(
        allow=(parse_network("192.0.2.0/24"), parse_network("2001:db8::/32")),
        deny=(parse_network("192.0.2.64/26"),),
    )
    assert Gate(limits).refusal(inet(host)) == (reason and (reason, Why.NETWORK))


def test_each_address_has_its_own_count_and_leaves_nothing() -> None:
    gate = Gate(Limits(per_address=2))
    one, other = inet("192.0.2.1"), inet("192.0.2.2")
    for _ in range(2):
        assert gate.refusal(one) is None
        gate.enter(one)
    assert gate.refusal(one) == (
        "2 connections from its address are open, the limit for one",
        Why.ADDRESS,
    )
    assert gate.refusal(other) is None
    gate.leave(one)
    assert gate.refusal(one) is None
    gate.leave(one)
    assert not gate._inside


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=100), st.integers(1, 10_000))
def test_resting_as_told_keeps_the_rate(sizes: list[int], rate: int) -> None:
    now = start = 100.0
    pace = Pace(rate, now)
    for size in sizes:
        now += pace.read(size, now)
    # One second's worth may come at once; the rest takes its time.
    assert sum(sizes) <= rate * (now - start) + rate + 1e-6


def test_who_keeps_the_rate_never_rests() -> None:
    pace = Pace(100, 0.0)
    assert [pace.read(50, second / 2) for second in range(1, 20)] == [0.0] * 19
    assert pace.read(1000, 10.0) > 0
    assert not pace.is_rested(10.5)
    assert pace.is_rested(30.0)
