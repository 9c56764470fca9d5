"""Statistical tests of every randomized toxic, on every medium that it supports.

Seeds are fixed, so no test can fail by chance. The bounds determine which faults are detected:

1. A share of n samples is within five standard errors. A correct share exceeds this for 1 of 1.7 million
   seeds; with 20,000 samples a share of 0.111 instead of 0.1 is detected.
2. A distribution has a Kolmogorov-Smirnov distance below 1.95 / sqrt(n). A correct one passes with 999 of
   1,000 seeds; the same distribution with a deviation that is a tenth larger fails.

Streams, messages and datagrams go through the pipeline of `impair`, packets through the switch of a wire.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable

import pytest

from bothends.toxics.bandwidth import Bandwidth
from bothends.toxics.base import Medium, Toxic
from bothends.toxics.corrupt import Corrupt
from bothends.toxics.duplicate import Duplicate
from bothends.toxics.gilbert_elliott import GilbertElliott
from bothends.toxics.latency import Latency
from bothends.toxics.loss import Loss
from bothends.toxics.placement import PlacedToxic, random_for
from bothends.toxics.reorder import Reorder
from bothends.toxics.slicer import Slicer
from bothends.wire import HostCommand, build_topology
from bothends.wire.plan import addresses_of
from bothends.wire.switch import Switch
from tests.toxics.path import Arrivals, ToxicPath, data_of, delays, messages_of, numbered, numbers
from tests.wire.test_packets import ipv4

COUNT = 20_000
PAIR = build_topology([HostCommand("a", ("x",)), HostCommand("b", ("x",))])

MESSAGE_MEDIA = [Medium.MESSAGES, Medium.DATAGRAMS, Medium.PACKETS]
UNORDERED_MEDIA = [Medium.DATAGRAMS, Medium.PACKETS]


def run_toxic(toxic: Toxic, medium: Medium, messages: list[tuple[float, bytes]], seed: int = 1) -> Arrivals:
    """Send messages through a toxic. Packets go over a wire as IPv4; their payloads are returned."""
    if medium is not Medium.PACKETS:
        return ToxicPath(medium, toxic, seed=seed).run(messages)
    link = Switch(PAIR, [PlacedToxic("it", "downstream", toxic)], seed=seed)
    source, destination = (addresses_of(number)[0].packed for number in (1, 2))
    link.begin(0.0)
    arrived: Arrivals = []

    def advance_to(now: float) -> None:
        while link.due <= now:
            due = link.due
            arrived.extend((due, packet[20:]) for _, packet in link.advance(due))

    for at, data in messages:
        advance_to(at)
        template = ipv4(data)
        datagram = template[:12] + source + destination + template[20:]
        arrived.extend((at, packet[20:]) for _, packet in link.receive(at, 0, datagram))
    advance_to(1e9)
    return arrived


def is_within_five_errors(found: int, share: float, count: int = COUNT) -> bool:
    """Whether a count matches a share within five standard errors."""
    return abs(found / count - share) <= 5 * math.sqrt(share * (1 - share) / count)


def test_five_error_bound_detects_share_wrong_by_a_ninth() -> None:
    assert not is_within_five_errors(round(COUNT * 0.1 * 10 / 9), 0.1)


@pytest.mark.parametrize("medium", MESSAGE_MEDIA)
def test_loss_share_and_run_length(medium: Medium) -> None:
    for burst, toxic in ((1.0, Loss(probability=0.1)), (4.0, Loss(probability=0.1, burst=4))):
        arrived = set(numbers(messages_of(run_toxic(toxic, medium, numbered(COUNT)))))
        flags = [number not in arrived for number in range(COUNT)]
        # The losses of a run count as one sample, so the standard error grows.
        assert abs(sum(flags) / COUNT - 0.1) <= 5 * math.sqrt(0.1 * 0.9 / COUNT * (2 * burst - 1))
        runs = [len(list(group)) for is_lost, group in itertools.groupby(flags) if is_lost]
        mean = burst if burst > 1 else 1 / 0.9
        deviation = math.sqrt(mean * (mean - 1))  # of a geometric distribution
        assert abs(statistics.fmean(runs) - mean) <= 5 * deviation / math.sqrt(len(runs))


@pytest.mark.parametrize("medium", MESSAGE_MEDIA)
def test_gilbert_elliott_loss_share(medium: Medium) -> None:
    toxic = GilbertElliott(enter=0.05, leave=0.25, bad=0.8, good=0.02)
    share = (0.25 * 0.02 + 0.05 * 0.8) / 0.3
    lost = COUNT - len(messages_of(run_toxic(toxic, medium, numbered(COUNT))))
    assert abs(lost / COUNT - share) <= 5 * math.sqrt(share * (1 - share) / COUNT * 2 / 0.3)


@pytest.mark.parametrize("medium", MESSAGE_MEDIA)
def test_duplicate_share(medium: Medium) -> None:
    arrived = Counter(numbers(messages_of(run_toxic(Duplicate(probability=0.1), medium, numbered(COUNT)))))
    assert set(arrived.values()) == {1, 2}
    assert is_within_five_errors(sum(times == 2 for times in arrived.values()), 0.1)


@pytest.mark.parametrize("medium", UNORDERED_MEDIA)
def test_reorder_gap_and_delay(medium: Medium) -> None:
    sent = numbered(COUNT, spacing=0.001)
    late = delays(sent, run_toxic(Reorder(probability=0.2, gap=2, delay=3.5), medium, sent))
    held = [number for number, delay in enumerate(late) if delay > 0]
    assert {number % 2 for number in held} == {1}  # every second one is a candidate
    assert is_within_five_errors(len(held), 0.2, COUNT // 2)
    assert all(late[number] == pytest.approx(0.0035) for number in held)


@pytest.mark.parametrize("medium", MESSAGE_MEDIA)
def test_corrupt_message_share(medium: Medium) -> None:
    sent = numbered(COUNT)
    # The flipped bit of a packet may be in its header, which is 20 of 120 bytes.
    share = 0.1 * (100 / 120 if medium is Medium.PACKETS else 1)
    arrived = [
        item for _, item in run_toxic(Corrupt(probability=0.1), medium, sent) if isinstance(item, bytes)
    ]
    wrong = sum(data != item for (_, data), item in zip(sent, arrived, strict=True))
    assert is_within_five_errors(wrong, share)


@pytest.mark.parametrize("medium", list(Medium))
def test_corrupt_bit_error_rate(medium: Medium) -> None:
    sent = numbered(4000)
    received = data_of(run_toxic(Corrupt(bit_errors=1e-3), medium, sent))
    bits = 4000 * 800
    wrong = (int.from_bytes(b"".join(data for _, data in sent)) ^ int.from_bytes(received)).bit_count()
    assert is_within_five_errors(wrong, 1e-3, bits)


def normal(deviation: float) -> Callable[[float], float]:
    return lambda value: 0.5 * (1 + math.erf((value - 200) / deviation / math.sqrt(2)))


def uniform(width: float) -> Callable[[float], float]:
    return lambda value: min(max((value - 200 + width) / (2 * width), 0), 1)


def pareto(deviation: float) -> Callable[[float], float]:
    """Return the distribution function with exponent 3, scaled to mean 0 and deviation 1."""
    return lambda value: 1 - min(((value - 200) / deviation * math.sqrt(0.75) + 1.5) ** -3, 1)


DISTRIBUTIONS = {"uniform": uniform, "normal": normal, "pareto": pareto}


def kolmogorov_smirnov_distance(found: list[float], expected: Callable[[float], float]) -> float:
    """Return the largest difference between the empirical and the expected distribution function."""
    ordered, count = sorted(found), len(found)
    return max(
        max(abs(expected(value) - index / count), abs((index + 1) / count - expected(value)))
        for index, value in enumerate(ordered)
    )


@pytest.mark.parametrize("medium", list(Medium))
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_latency_jitter_distribution(name: str, medium: Medium) -> None:
    sent = numbered(8000, spacing=10.0)  # none waits for another
    toxic = Latency(latency=200, jitter=20, distribution=name)
    found = [delay * 1000 for delay in delays(sent, run_toxic(toxic, medium, sent))]
    bound = 1.95 / math.sqrt(len(found))
    assert kolmogorov_smirnov_distance(found, DISTRIBUTIONS[name](20)) < bound
    assert kolmogorov_smirnov_distance(found, DISTRIBUTIONS[name](22)) > bound


@pytest.mark.parametrize("medium", list(Medium))
def test_bandwidth_transfer_time(medium: Medium) -> None:
    size = 1000 + (20 if medium is Medium.PACKETS else 0)
    arrived = run_toxic(Bandwidth(rate=100, queue=2**30), medium, numbered(1000, spacing=0.0, size=1000))
    assert len(data_of(arrived)) == 1_000_000
    assert arrived[-1][0] == pytest.approx(1000 * size / 100_000, rel=1e-3)


def test_slicer_chunk_sizes() -> None:
    """Uniform from 50 to 150: mean 100, deviation sqrt((101^2 - 1) / 12)."""
    arrived = run_toxic(
        Slicer(average_size=100, size_variation=50, delay=10), Medium.STREAM, [(0.0, bytes(500_000))]
    )
    sizes = [len(item) for _, item in arrived if isinstance(item, bytes)][:-1]
    assert (min(sizes), max(sizes)) == (50, 150)
    error = math.sqrt((101**2 - 1) / 12) / math.sqrt(len(sizes))
    assert abs(statistics.fmean(sizes) - 100) <= 5 * error


def test_toxicity_share_of_connections() -> None:
    spec = PlacedToxic("it", "downstream", Latency(latency=1), toxicity=0.3)
    affected = sum(spec.applies_to("192.0.2.1", random_for(1, "proxy", number)) for number in range(COUNT))
    assert is_within_five_errors(affected, 0.3)
