"""The middle of a wire as a dialogue: what a port sends, and what leaves where. No host, no socket."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bothends.errors import ToxicError
from bothends.toxics import registry
from bothends.toxics.attributes import from_words
from bothends.toxics.pipeline import MOST_HELD
from bothends.toxics.placement import DIRECTIONS, Spec
from bothends.wire import Command, Passage, packets, plan
from bothends.wire.plan import addresses_of
from bothends.wire.switch import Link
from tests.wire.test_packets import ipv4, ipv6

PAIR = plan([Command("a", ("x",)), Command("b", ("x",))])
THREE = plan([Command(name, ("x",)) for name in "abc"])


def toxics(**texts: str) -> list[Spec]:
    return [
        Spec(f"{name}_{direction}", direction, from_words(registry.load(name), text))
        for name, text in texts.items()
        for direction in DIRECTIONS
    ]


def packet(sender: int, receiver: int, payload: bytes = b"12345678") -> bytes:
    """From a host to a host, by their numbers from 1."""
    made = ipv4(payload)
    return made[:12] + addresses_of(sender)[0].packed + addresses_of(receiver)[0].packed + made[20:]


def test_a_switch_knows_where_everyone_is() -> None:
    link = Link(THREE)
    for receiver in (2, 3):
        sent = packet(1, receiver)
        assert link.receive(0, 0, sent) == [(receiver - 1, sent)]
    to_six = ipv6(bytes(8))  # from fd00::1 to fd00::2
    assert link.receive(0, 0, to_six) == [(1, to_six)]


def test_a_frame_goes_straight_on_while_nobody_looks() -> None:
    link = Link(THREE)
    assert link.is_clear
    for at in (10, 24):
        assert link.straight(0, bytes(at) + packet(1, 3, bytes(20)), at) == 2
        assert link.straight(0, bytes(at) + ipv6(bytes(8)), at) == 1
    assert (link.ways[0, 2].sent, link.ways[0, 2].sent_bytes) == (2, 80)
    for_many = packet(1, 2, bytes(20))[:16] + bytes([224, 0, 0, 9]) + bytes(20)
    to_neighbours = ipv6(bytes(8), following=58)
    too_large = packet(1, 2, bytes(1500))
    nobody = packet(1, 77, bytes(20))
    for odd in (nobody, packet(1, 1, bytes(20)), for_many, to_neighbours, too_large, b"", bytes(100)):
        assert link.straight(0, bytes(10) + odd, 10) == -1
    assert sum(way.sent for way in link.ways.values()) == 4


def test_who_looks_at_packets_keeps_frames_from_going_straight() -> None:
    assert not Link(PAIR, toxics(latency="5ms")).is_clear
    assert not Link(PAIR, observe=lambda passage: None).is_clear
    link = Link(PAIR)
    (spec, *_) = toxics(latency="5ms")
    link.add(spec, 0)
    assert not link.is_clear
    link.remove(spec.name, 1)
    assert link.is_clear


def test_what_is_for_many_goes_to_all_others() -> None:
    sent = packet(2, 1)[:16] + bytes([224, 0, 0, 9]) + bytes(8)
    assert Link(THREE).receive(0, 1, sent) == [(0, sent), (2, sent)]


def test_what_is_for_nobody_is_answered() -> None:
    link = Link(PAIR)
    ((port, answer),) = link.receive(0, 0, packet(1, 77))
    assert port == 0
    assert answer[20:22] == bytes([3, 1])
    assert link.refused == {"unreachable": 1}
    assert Link(PAIR, icmp=False).receive(0, 0, packet(1, 77)) == []


@pytest.mark.parametrize("junk", [b"", b"\x45", bytes(40), b"\x60" + bytes(30), b"\x00" * 2000])
def test_what_is_no_packet_goes_nowhere(junk: bytes) -> None:
    assert Link(PAIR).receive(0, 0, junk) == []


def test_in_a_line_a_cable_carries_everything() -> None:
    link = Link(plan([Command(name, ("x",)) for name in "abc"], line=True))
    sent = packet(1, 3)
    assert link.receive(0, 0, sent) == [(1, sent)]
    assert link.receive(0, 2, sent) == [(3, sent)]
    assert link.receive(0, 3, packet(3, 99)) == [(2, packet(3, 99))]  # the router will say that


def test_a_loop_takes_its_own_addresses_only() -> None:
    link = Link(plan([Command("a", ("x",))]))
    home = packet(1, 1)[:12] + bytes([127, 0, 0, 1, 127, 0, 0, 2]) + bytes(8)
    assert link.receive(0, 0, home) == [(0, home)]
    assert link.receive(0, 0, packet(1, 1)) == [(0, packet(1, 1))]
    assert link.receive(0, 0, packet(1, 2))[0][1][20:22] == bytes([3, 1])


def test_the_mtu_cuts_or_refuses() -> None:
    link = Link(replace(PAIR, mtu=1000))
    large = packet(1, 2, bytes(1400))
    out = link.receive(0, 0, large)
    assert [port for port, _ in out] == [1, 1]
    assert [part for _, part in out] == packets.fragments(large, 1000)
    whole = large[:6] + b"\x40\x00" + large[8:]  # Don't Fragment
    ((port, answer),) = link.receive(0, 0, whole)
    assert (port, answer[20:22]) == (0, bytes([3, 4]))
    assert link.refused == {"mtu": 1}
    assert Link(replace(PAIR, mtu=1000), icmp=False).receive(0, 0, whole) == []


def test_delay_is_one_way_and_exact() -> None:
    link = Link(PAIR, toxics(latency="40ms"))
    sent = packet(1, 2)
    assert link.receive(10.0, 0, sent) == []
    assert link.due == pytest.approx(10.04)
    assert link.held == len(sent)
    assert link.advance(10.039) == []
    assert link.advance(10.04) == [(1, sent)]


def losses(seed: int, count: int, specs: list[Spec], *, other_way: int = 0) -> list[int]:
    """Which packets from a to b are lost; meanwhile some go the other way."""
    link = Link(PAIR, specs, seed=seed)
    lost = []
    for number in range(count):
        for _ in range(other_way):
            link.receive(number, 1, packet(2, 1))
        if not link.receive(number, 0, packet(1, 2)):
            lost.append(number)
    return lost


def test_a_seed_decides_about_each_direction_by_itself() -> None:
    specs = toxics(loss="20%")
    first = losses(7, 2000, specs)
    assert losses(7, 2000, specs, other_way=3) == first
    assert losses(8, 2000, specs) != first
    assert 2000 * 0.2 - 80 < len(first) < 2000 * 0.2 + 80  # more than four standard deviations
    assert losses(7, 100, specs[1:]) == [number for number in first if number < 100]
    assert losses(7, 100, specs[:1]) == []  # upstream only, from b to a


def test_who_observes_learns_what_became_of_each() -> None:
    seen: list[Passage] = []
    link = Link(PAIR, toxics(loss="20%", duplicate="20%"), seed=1, observe=seen.append)
    for number in range(50):
        link.receive(float(number), 0, packet(1, 2, bytes([number] * 8)))
    sent = [each for each in seen if each.event == "sent"]
    assert [each.number for each in sent] == list(range(1, 51))
    assert {(each.sender, each.receiver) for each in seen} == {(0, 1)}
    lost = {each.number for each in seen if each.event == "lost"}
    assert {each.toxic for each in seen if each.event == "lost"} == {"loss_downstream"}
    arrived = [each.number for each in seen if each.event == "arrived"]
    assert lost | set(arrived) == set(range(1, 51))
    assert not lost & set(arrived)
    assert len(arrived) > len(set(arrived))
    assert all(each.packet[20:] == bytes([each.number - 1] * 8) for each in seen)


def test_nobody_is_held_up_and_nothing_grows_without_bound() -> None:
    seen: list[Passage] = []
    link = Link(PAIR, toxics(latency="1000s"), observe=seen.append)
    sent = packet(1, 2, bytes(1400))
    for _ in range(MOST_HELD // len(sent) + 10):
        assert link.receive(0, 0, sent) == []
    assert link.held <= MOST_HELD
    assert {each.toxic for each in seen if each.event == "lost"} == {"queue"}


def test_a_toxic_comes_and_goes() -> None:
    link = Link(PAIR)
    (up, down) = toxics(blackhole="")
    (slow, _) = toxics(latency="1s")
    assert link.add(down, 1.0) == []
    assert link.receive(1.5, 0, packet(1, 2)) == []
    assert len(link.receive(1.5, 1, packet(2, 1))) == 1
    assert link.remove(down.name, 2.0) == []
    assert len(link.receive(2.5, 0, packet(1, 2))) == 1
    link.add(slow, 3.0)
    assert link.receive(3.0, 1, packet(2, 1)) == []
    assert link.remove(slow.name, 3.5) == [(0, packet(2, 1))]  # what it held is not lost
    link.add(up, 4.0)
    assert link.receive(4.0, 1, packet(2, 1)) == []


def test_a_wire_knows_no_connections() -> None:
    (up, _) = toxics(loss="20%")
    with pytest.raises(ToxicError, match="toxicity and clients are for impair"):
        Link(PAIR, [replace(up, toxicity=0.5)])


def test_a_toxic_that_is_nothing_for_packets_is_refused() -> None:
    with pytest.raises(ToxicError):
        Link(PAIR, toxics(slicer="10,2"))


def test_the_same_toxic_twice_draws_twice() -> None:
    again = [replace(spec, name=f"{spec.name}_2") for spec in toxics(loss="50%")]
    link = Link(PAIR, toxics(loss="50%") + again)
    passed = sum(len(link.receive(0, 0, packet(1, 2))) for _ in range(1000))
    assert 180 < passed < 320  # a quarter, within five standard deviations
