"""Random numbers with a memory: each correlated with the one before, without bending the distribution.

A chain of standard normal numbers z' = c z + sqrt(1 - c^2) n has, whatever c is, the standard normal
distribution, and neighbours have the correlation c (an AR(1) process). Its distribution function turns each
into a uniform number, and the quantile function of any distribution that into one of this. netem(8) mixes
uniform numbers instead, which makes correlated delays less spread than they were asked to be.
"""

from __future__ import annotations

import math
from random import Random


class CorrelatedUniform:
    """Uniform numbers in (0, 1), each with the correlation `c` (0 to 1, of the normal numbers behind) to the
    one before."""

    __slots__ = ("_correlation", "_noise_scale", "_random", "_z")

    def __init__(self, random: Random, correlation: float = 0.0) -> None:
        self._random = random
        self._correlation = correlation
        self._noise_scale = math.sqrt(1 - correlation**2)
        self._z = random.gauss(0, 1) if correlation else 0.0

    def draw(self) -> float:
        """The next number."""
        if not self._correlation:
            return self._random.random()
        self._z = self._correlation * self._z + self._noise_scale * self._random.gauss(0, 1)
        return 0.5 * math.erfc(-self._z / math.sqrt(2))


class TwoStateMarkov:
    """A good state and a bad one, with the chances of going over at each step (a Markov chain).

    It begins in either with the share that it spends there in the long run, so that a short run is not
    biased towards the good one.
    """

    __slots__ = ("_enter", "_leave", "_random", "is_bad")

    def __init__(self, random: Random, enter: float, leave: float) -> None:
        self._random = random
        self._enter = enter
        self._leave = leave
        total = enter + leave
        self.is_bad = bool(total) and random.random() < enter / total

    def step(self) -> bool:
        """Whether the state is bad now; then on to the next."""
        now = self.is_bad
        if self._random.random() < (self._leave if now else self._enter):
            self.is_bad = not now
        return now
