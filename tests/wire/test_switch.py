"""The switch: packets in, packets and ports out. No host, no socket."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bothends.errors import ToxicError
from bothends.toxics import registry
from bothends.toxics.attributes import parse_attributes
from bothends.toxics.pipeline import MAX_HELD_BYTES
from bothends.toxics.placement import DIRECTIONS, PlacedToxic
from bothends.wire import HostCommand, PacketEvent, build_topology, packets
from bothends.wire.plan import addresses_of
from bothends.wire.switch import Switch
from tests.wire.test_packets import ipv4, ipv6

PAIR = build_topology([HostCommand("a", ("x",)), HostCommand("b", ("x",))])
TRIPLE = build_topology([HostCommand(name, ("x",)) for name in "abc"])


def toxics(**texts: str) -> list[PlacedToxic]:
    return [
        PlacedToxic(f"{name}_{direction}", direction, parse_attributes(registry.load(name), text))
        for name, text in texts.items()
        for direction in DIRECTIONS
    ]


def packet(sender: int, receiver: int, payload: bytes = b"12345678") -> bytes:
    """Return a packet from one host to another, by their numbers from 1."""
    template = ipv4(payload)
    return template[:12] + addresses_of(sender)[0].packed + addresses_of(receiver)[0].packed + template[20:]


def test_switch_forwards_to_destination_port() -> None:
    switch = Switch(TRIPLE)
    for receiver in (2, 3):
        sent = packet(1, receiver)
        assert switch.receive(0, 0, sent) == [(receiver - 1, sent)]
    to_six = ipv6(bytes(8))  # from fd00::1 to fd00::2
    assert switch.receive(0, 0, to_six) == [(1, to_six)]


def test_fast_forward_unicast_frames_only() -> None:
    switch = Switch(TRIPLE)
    assert switch.can_fast_forward
    for at in (10, 24):
        assert switch.fast_forward(0, bytes(at) + packet(1, 3, bytes(20)), at) == 2
        assert switch.fast_forward(0, bytes(at) + ipv6(bytes(8)), at) == 1
    assert (switch.links[0, 2].sent, switch.links[0, 2].sent_bytes) == (2, 80)
    for_many = packet(1, 2, bytes(20))[:16] + bytes([224, 0, 0, 9]) + bytes(20)
    to_neighbours = ipv6(bytes(8), following=58)
    too_large = packet(1, 2, bytes(1500))
    unknown = packet(1, 77, bytes(20))
    for odd in (unknown, packet(1, 1, bytes(20)), for_many, to_neighbours, too_large, b"", bytes(100)):
        assert switch.fast_forward(0, bytes(10) + odd, 10) == -1
    assert sum(link.sent for link in switch.links.values()) == 4


def test_toxic_or_observer_disables_fast_forward() -> None:
    assert not Switch(PAIR, toxics(latency="5ms")).can_fast_forward
    assert not Switch(PAIR, observe=lambda event: None).can_fast_forward
    switch = Switch(PAIR)
    (spec, *_) = toxics(latency="5ms")
    switch.add_toxic(spec, 0)
    assert not switch.can_fast_forward
    switch.remove_toxic(spec.name, 1)
    assert switch.can_fast_forward


def test_multicast_is_forwarded_to_all_other_ports() -> None:
    sent = packet(2, 1)[:16] + bytes([224, 0, 0, 9]) + bytes(8)
    assert Switch(TRIPLE).receive(0, 1, sent) == [(0, sent), (2, sent)]


def test_unknown_destination_gets_icmp_unreachable() -> None:
    switch = Switch(PAIR)
    ((port, answer),) = switch.receive(0, 0, packet(1, 77))
    assert port == 0
    assert answer[20:22] == bytes([3, 1])
    assert switch.rejected == {"unreachable": 1}
    assert Switch(PAIR, icmp=False).receive(0, 0, packet(1, 77)) == []


@pytest.mark.parametrize("junk", [b"", b"\x45", bytes(40), b"\x60" + bytes(30), b"\x00" * 2000])
def test_invalid_packet_is_dropped(junk: bytes) -> None:
    assert Switch(PAIR).receive(0, 0, junk) == []


def test_line_topology_forwards_everything() -> None:
    switch = Switch(build_topology([HostCommand(name, ("x",)) for name in "abc"], line=True))
    sent = packet(1, 3)
    assert switch.receive(0, 0, sent) == [(1, sent)]
    assert switch.receive(0, 2, sent) == [(3, sent)]
    assert switch.receive(0, 3, packet(3, 99)) == [(2, packet(3, 99))]  # the router reports that


def test_loop_topology_accepts_only_own_addresses() -> None:
    switch = Switch(build_topology([HostCommand("a", ("x",))]))
    home = packet(1, 1)[:12] + bytes([127, 0, 0, 1, 127, 0, 0, 2]) + bytes(8)
    assert switch.receive(0, 0, home) == [(0, home)]
    assert switch.receive(0, 0, packet(1, 1)) == [(0, packet(1, 1))]
    assert switch.receive(0, 0, packet(1, 2))[0][1][20:22] == bytes([3, 1])


def test_mtu_fragments_or_rejects() -> None:
    switch = Switch(replace(PAIR, mtu=1000))
    large = packet(1, 2, bytes(1400))
    out = switch.receive(0, 0, large)
    assert [port for port, _ in out] == [1, 1]
    assert [part for _, part in out] == packets.fragments(large, 1000)
    whole = large[:6] + b"\x40\x00" + large[8:]  # Don't Fragment
    ((port, answer),) = switch.receive(0, 0, whole)
    assert (port, answer[20:22]) == (0, bytes([3, 4]))
    assert switch.rejected == {"mtu": 1}
    assert Switch(replace(PAIR, mtu=1000), icmp=False).receive(0, 0, whole) == []


def test_latency_is_one_way_and_exact() -> None:
    switch = Switch(PAIR, toxics(latency="40ms"))
    sent = packet(1, 2)
    assert switch.receive(10.0, 0, sent) == []
    assert switch.due == pytest.approx(10.04)
    assert switch.held == len(sent)
    assert switch.advance(10.039) == []
    assert switch.advance(10.04) == [(1, sent)]


def lost_packets(seed: int, count: int, specs: list[PlacedToxic], *, reverse_packets: int = 0) -> list[int]:
    """Return which packets from a to b are lost, while some go the other way."""
    switch = Switch(PAIR, specs, seed=seed)
    lost = []
    for number in range(count):
        for _ in range(reverse_packets):
            switch.receive(number, 1, packet(2, 1))
        if not switch.receive(number, 0, packet(1, 2)):
            lost.append(number)
    return lost


def test_seed_is_independent_per_direction() -> None:
    specs = toxics(loss="20%")
    first = lost_packets(7, 2000, specs)
    assert lost_packets(7, 2000, specs, reverse_packets=3) == first
    assert lost_packets(8, 2000, specs) != first
    assert 2000 * 0.2 - 80 < len(first) < 2000 * 0.2 + 80  # more than four standard deviations
    assert lost_packets(7, 100, specs[1:]) == [number for number in first if number < 100]
    assert lost_packets(7, 100, specs[:1]) == []  # upstream only, from b to a


def test_observer_sees_fate_of_each_packet() -> None:
    seen: list[PacketEvent] = []
    switch = Switch(PAIR, toxics(loss="20%", duplicate="20%"), seed=1, observe=seen.append)
    for number in range(50):
        switch.receive(float(number), 0, packet(1, 2, bytes([number] * 8)))
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


def test_held_bytes_are_bounded() -> None:
    seen: list[PacketEvent] = []
    switch = Switch(PAIR, toxics(latency="1000s"), observe=seen.append)
    sent = packet(1, 2, bytes(1400))
    for _ in range(MAX_HELD_BYTES // len(sent) + 10):
        assert switch.receive(0, 0, sent) == []
    assert switch.held <= MAX_HELD_BYTES
    assert {each.toxic for each in seen if each.event == "lost"} == {"queue"}


def test_toxic_added_and_removed() -> None:
    switch = Switch(PAIR)
    (up, down) = toxics(blackhole="")
    (slow, _) = toxics(latency="1s")
    assert switch.add_toxic(down, 1.0) == []
    assert switch.receive(1.5, 0, packet(1, 2)) == []
    assert len(switch.receive(1.5, 1, packet(2, 1))) == 1
    assert switch.remove_toxic(down.name, 2.0) == []
    assert len(switch.receive(2.5, 0, packet(1, 2))) == 1
    switch.add_toxic(slow, 3.0)
    assert switch.receive(3.0, 1, packet(2, 1)) == []
    assert switch.remove_toxic(slow.name, 3.5) == [(0, packet(2, 1))]  # held packets are not lost
    switch.add_toxic(up, 4.0)
    assert switch.receive(4.0, 1, packet(2, 1)) == []


def test_toxicity_on_wire_is_rejected() -> None:
    (up, _) = toxics(loss="20%")
    with pytest.raises(ToxicError, match="toxicity and clients are for impair"):
        Switch(PAIR, [replace(up, toxicity=0.5)])


def test_toxic_without_packet_effect_is_rejected() -> None:
    with pytest.raises(ToxicError):
        Switch(PAIR, toxics(slicer="10,2"))


def test_same_toxic_twice_draws_independently() -> None:
    second = [replace(spec, name=f"{spec.name}_2") for spec in toxics(loss="50%")]
    switch = Switch(PAIR, toxics(loss="50%") + second)
    passed = sum(len(switch.receive(0, 0, packet(1, 2))) for _ in range(1000))
    assert 180 < passed < 320  # a quarter, within five standard deviations
