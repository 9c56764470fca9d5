from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import Address
from bothends.events import Why
from bothends.services.amplification_guard import ANSWER_ANYTHING, Guard


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def answered(guard: Guard, address: Address, tries: int) -> int:
    return sum(guard.refusal(address) is None for _ in range(tries))


def host(number: int, port: int = 5000) -> Address:
    return Address("inet", f"10.0.{number // 256}.{number % 256}", port)


@pytest.mark.parametrize("port", [0, *ANSWER_ANYTHING])
def test_who_answers_anything_is_not_answered(port: int) -> None:
    for address in (host(1, port), Address("inet6", "::1", port)):
        refusal = Guard(10).refusal(address)
        assert refusal is not None
        assert f"port {port}" in refusal.reason
        assert refusal.why is Why.SOURCE


@pytest.mark.parametrize("port", [53, 123, 1024, 12000])
def test_who_asks_is_answered(port: int) -> None:
    assert Guard(10).refusal(host(1, port)) is None


def test_a_grant_at_once_then_the_rate() -> None:
    clock = Clock()
    guard = Guard(50, now=clock)
    assert answered(guard, host(1), 600) == 500
    assert guard.refusal(host(1)) == ("more than 50 answers a second to this host", Why.RATE)
    clock.now += 1
    assert answered(guard, host(1), 100) == 50
    clock.now += 3600
    assert answered(guard, host(1), 600) == 500


def test_a_slow_rate_still_grants_one() -> None:
    assert answered(Guard(0.01), host(1), 5) == 1


def test_a_host_is_bounded_over_all_its_ports_and_others_are_not() -> None:
    guard = Guard(1, now=Clock())
    assert sum(guard.refusal(host(1, port)) is None for port in range(2000, 2100)) == 10
    assert guard.refusal(host(2)) is None


def test_an_ipv6_host_is_its_network() -> None:
    guard = Guard(1, now=Clock())
    addresses = [Address("inet6", f"2001:db8::{number:x}", 5000) for number in range(1, 100)]
    assert sum(guard.refusal(address) is None for address in addresses) == 10
    assert guard.refusal(Address("inet6", "2001:db8:0:1::1", 5000)) is None
    assert guard.refusal(Address("inet6", "fe80::1%eth0", 5000)) is None


def test_a_unix_peer_cannot_be_forged() -> None:
    assert answered(Guard(1, now=Clock()), Address("unix", "/tmp/client"), 100) == 100


def test_forging_many_hosts_makes_the_table_forget_nobody() -> None:
    clock = Clock()
    guard = Guard(1, now=clock, hosts=4)
    victim = host(0)
    assert answered(guard, victim, 100) == 10
    forged = sum(guard.refusal(host(number)) is None for number in range(1, 1000))
    assert forged == 3 + 10  # three more hosts that the table has room for, then one grant for all
    assert guard.refusal(victim) is not None


def test_who_has_the_full_grant_again_makes_room() -> None:
    clock = Clock()
    guard = Guard(1, now=clock, hosts=2)
    assert answered(guard, host(1), 20) == answered(guard, host(2), 20) == 10
    clock.now += 10
    assert answered(guard, host(3), 20) == 10
    assert answered(guard, host(4), 20) == 10
    assert answered(guard, host(1), 20) == 10


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 3)), max_size=200))
def test_no_host_ever_gets_more_than_grant_and_rate(asks: list[tuple[int, float]]) -> None:
    clock = Clock()
    guard = Guard(2, now=clock, grant=3, hosts=3)
    begun = clock.now
    got: dict[int, int] = {}
    for number, wait in asks:
        clock.now += wait
        got[number] = got.get(number, 0) + (guard.refusal(host(number)) is None)
        # Its own grant, and at worst once that of the newcomers.
        assert got[number] <= 2 * (6 + 2 * (clock.now - begun)) + 1e-6
