from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import Address
from bothends.events import RejectReason
from bothends.services.amplification_guard import REFLECTOR_PORTS, AmplificationGuard


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def count_answered(guard: AmplificationGuard, address: Address, tries: int) -> int:
    return sum(guard.check(address) is None for _ in range(tries))


def host(number: int, port: int = 5000) -> Address:
    return Address("inet", f"10.0.{number // 256}.{number % 256}", port)


@pytest.mark.parametrize("port", [0, *REFLECTOR_PORTS])
def test_reflector_ports_are_rejected(port: int) -> None:
    for address in (host(1, port), Address("inet6", "::1", port)):
        refusal = AmplificationGuard(10).check(address)
        assert refusal is not None
        assert f"port {port}" in refusal.reason
        assert refusal.why is RejectReason.SOURCE


@pytest.mark.parametrize("port", [53, 123, 1024, 12000])
def test_other_ports_are_answered(port: int) -> None:
    assert AmplificationGuard(10).check(host(1, port)) is None


def test_burst_then_rate() -> None:
    clock = Clock()
    guard = AmplificationGuard(50, now=clock)
    assert count_answered(guard, host(1), 600) == 500
    assert guard.check(host(1)) == ("more than 50 answers a second to this host", RejectReason.RATE)
    clock.now += 1
    assert count_answered(guard, host(1), 100) == 50
    clock.now += 3600
    assert count_answered(guard, host(1), 600) == 500


def test_slow_rate_allows_one() -> None:
    assert count_answered(AmplificationGuard(0.01), host(1), 5) == 1


def test_limit_is_per_host_across_ports() -> None:
    guard = AmplificationGuard(1, now=Clock())
    assert sum(guard.check(host(1, port)) is None for port in range(2000, 2100)) == 10
    assert guard.check(host(2)) is None


def test_ipv6_limit_is_per_64_prefix() -> None:
    guard = AmplificationGuard(1, now=Clock())
    addresses = [Address("inet6", f"2001:db8::{number:x}", 5000) for number in range(1, 100)]
    assert sum(guard.check(address) is None for address in addresses) == 10
    assert guard.check(Address("inet6", "2001:db8:0:1::1", 5000)) is None
    assert guard.check(Address("inet6", "fe80::1%eth0", 5000)) is None


def test_unix_peer_is_not_limited() -> None:
    assert count_answered(AmplificationGuard(1, now=Clock()), Address("unix", "/tmp/client"), 100) == 100


def test_full_table_keeps_limited_hosts() -> None:
    clock = Clock()
    guard = AmplificationGuard(1, now=clock, max_hosts=4)
    victim = host(0)
    assert count_answered(guard, victim, 100) == 10
    forged = sum(guard.check(host(number)) is None for number in range(1, 1000))
    assert forged == 3 + 10  # the table has room for three more hosts; all others share one bucket
    assert guard.check(victim) is not None


def test_host_with_full_bucket_is_evicted() -> None:
    clock = Clock()
    guard = AmplificationGuard(1, now=clock, max_hosts=2)
    assert count_answered(guard, host(1), 20) == count_answered(guard, host(2), 20) == 10
    clock.now += 10
    assert count_answered(guard, host(3), 20) == 10
    assert count_answered(guard, host(4), 20) == 10
    assert count_answered(guard, host(1), 20) == 10


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 3)), max_size=200))
def test_host_never_exceeds_burst_and_rate(asks: list[tuple[int, float]]) -> None:
    clock = Clock()
    guard = AmplificationGuard(2, now=clock, burst_seconds=3, max_hosts=3)
    begun = clock.now
    got: dict[int, int] = {}
    for number, wait in asks:
        clock.now += wait
        got[number] = got.get(number, 0) + (guard.check(host(number)) is None)
        # Its own bucket, and at worst once the shared one.
        assert got[number] <= 2 * (6 + 2 * (clock.now - begun)) + 1e-6
