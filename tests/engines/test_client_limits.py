"""`engines/client_limits.py`: networks, connections per address, and the read rate of one client."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import Address
from bothends.engines.base import Limits
from bothends.engines.client_limits import AccessControl, TokenBucket, parse_network
from bothends.events import RejectReason


def inet(host: str) -> Address:
    return Address("inet6" if ":" in host else "inet", host, 5000)


def test_access_without_limits_allows_all() -> None:
    access_control = AccessControl(Limits())
    assert access_control.rejection(inet("192.0.2.1")) is None
    assert access_control.rejection(Address("unix", "@me")) is None


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
def test_access_deny_precedes_allow(host: str, reason: str | None) -> None:
    limits = Limits(
        allow=(parse_network("192.0.2.0/24"), parse_network("2001:db8::/32")),
        deny=(parse_network("192.0.2.64/26"),),
    )
    assert AccessControl(limits).rejection(inet(host)) == (reason and (reason, RejectReason.NETWORK))


def test_access_per_address_count_is_released() -> None:
    access_control = AccessControl(Limits(per_address=2))
    one, other = inet("192.0.2.1"), inet("192.0.2.2")
    for _ in range(2):
        assert access_control.rejection(one) is None
        access_control.add(one)
    assert access_control.rejection(one) == (
        "2 connections from its address are open, the limit for one address",
        RejectReason.ADDRESS,
    )
    assert access_control.rejection(other) is None
    access_control.remove(one)
    assert access_control.rejection(one) is None


def test_access_address_without_connections_uses_no_memory() -> None:
    access_control = AccessControl(Limits(per_address=2))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(10_000):
            address = inet(f"192.0.{number >> 8}.{number & 255}")
            access_control.add(address)
            access_control.remove(address)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000  # ten bytes for each
    finally:
        tracemalloc.stop()


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=100), st.integers(1, 10_000))
def test_token_bucket_pauses_keep_rate(sizes: list[int], rate: int) -> None:
    now = start = 100.0
    bucket = TokenBucket(rate, now)
    for size in sizes:
        now += bucket.consume(size, now)
    # A burst of one second's worth is allowed.
    assert sum(sizes) <= rate * (now - start) + rate + 1e-6


def test_token_bucket_within_rate_never_pauses() -> None:
    bucket = TokenBucket(100, 0.0)
    assert [bucket.consume(50, second / 2) for second in range(1, 20)] == [0.0] * 19
    assert bucket.consume(1000, 10.0) > 0
    assert not bucket.is_full(10.5)
    assert bucket.is_full(30.0)


@pytest.mark.parametrize("silence", [0.0, 0.5, 1.0, 60.0])
def test_bucket_bursts_are_one_second_after_any_silence(silence: float) -> None:
    bucket = TokenBucket(1000, now=0.0)
    assert bucket.consume(1000, 0.0) == 0
    kept = min(1000, round(1000 * silence))
    assert bucket.consume(3000, silence) == pytest.approx((3000 - kept) / 1000)
