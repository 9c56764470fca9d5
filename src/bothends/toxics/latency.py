"""latency: delay everything.

The jitter has mean 0 and is scaled by J. Distributions: uniform, between -J and J as in Toxiproxy; normal,
with standard deviation J; Pareto, with standard deviation J and a right tail: most messages are a little
early, a few very late. The exponent 3 is that of the table that ships with netem(8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar, Final

from bothends.toxics.attributes import attribute
from bothends.toxics.base import Decision, Delivery, LinkContext, Medium, Toxic, ToxicState
from bothends.toxics.random_processes import CorrelatedUniform

_NORMAL: Final = NormalDist()
_SHAPE: Final = 3.0
_PARETO_MEAN: Final = _SHAPE / (_SHAPE - 1)
_PARETO_DEVIATION: Final = math.sqrt(_SHAPE / ((_SHAPE - 1) ** 2 * (_SHAPE - 2)))


def _normal(share: float) -> float:
    return _NORMAL.inv_cdf(min(max(share, 1e-12), 1 - 1e-12))


def _pareto(share: float) -> float:
    power = math.pow(1 - min(share, 1 - 1e-12), -1 / _SHAPE)
    return (power - _PARETO_MEAN) / _PARETO_DEVIATION


# Quantile functions: a uniform number in (0, 1) to the jitter in units of J.
QUANTILES: Final[Mapping[str, Callable[[float], float]]] = {
    "uniform": lambda share: 2 * share - 1,
    "normal": _normal,
    "pareto": _pareto,
}


@dataclass(frozen=True, kw_only=True)
class Latency(Toxic):
    """Delays by `latency` ± `jitter`, never less than 0."""

    type = "latency"
    summary = "delays everything, with optional jitter"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "each chunk is delayed; bytes stay in order, even with jitter",
        Medium.MESSAGES: "each message is delayed; messages stay in order, even with jitter",
        Medium.DATAGRAMS: "each datagram is delayed; jitter may reorder them",
        Medium.PACKETS: "each packet is delayed; jitter may reorder them",
    }
    short_form = ("latency", "jitter")
    in_toxiproxy = True

    latency: float = attribute(0, "ms", "the delay", in_toxiproxy=True)
    jitter: float = attribute(0, "ms", "variation of the delay", in_toxiproxy=True)
    distribution: str = attribute("uniform", "word", "distribution of the jitter", choices=tuple(QUANTILES))
    correlation: float = attribute(0, "share", "correlation of each delay with the previous one")
    ordered: int = attribute(0, "count", "1: keep datagrams in order", maximum=1)

    def new_state(self, link: LinkContext) -> ToxicState:
        return _LatencyState(self, link)


class _LatencyState(ToxicState):
    def __init__(self, toxic: Latency, link: LinkContext) -> None:
        self._base_delay = toxic.latency / 1000
        self._jitter = toxic.jitter / 1000
        self._quantile = QUANTILES[toxic.distribution]
        self._uniform = CorrelatedUniform(link.random, toxic.correlation)
        self._ordered = bool(toxic.ordered)
        self._last_due = -math.inf

    def decide(self, now: float, size: int) -> Decision:
        delay = self._delay()
        if self._ordered:
            self._last_due = max(self._last_due, now + delay)
            delay = self._last_due - now
        return (Delivery(delay),)

    def end(self, now: float) -> Decision:
        return (Delivery(self._delay()),)

    def _delay(self) -> float:
        if not self._jitter:
            return self._base_delay
        return max(0.0, self._base_delay + self._jitter * self._quantile(self._uniform.draw()))
