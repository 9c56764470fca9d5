"""Random processes: correlated uniform numbers, and a two-state Markov chain.

An AR(1) process z' = c z + sqrt(1 - c^2) n of standard normal numbers is standard normal for every c, and
neighbours have correlation c. The normal distribution function turns each z into a uniform number, and a
quantile function turns that into any other distribution, so correlation does not change the distribution.
netem(8) averages uniform numbers instead, which narrows the spread of correlated delays.
"""

from __future__ import annotations

import math
from random import Random


class CorrelatedUniform:
    """Uniform numbers in (0, 1), each correlated with the previous one.

    `correlation` is that of the underlying normal numbers, from 0 to 1.
    """

    __slots__ = ("_correlation", "_noise_scale", "_random", "_z")

    def __init__(self, random: Random, correlation: float = 0.0) -> None:
        self._random = random
        self._correlation = correlation
        self._noise_scale = math.sqrt(1 - correlation**2)
        self._z = random.gauss(0, 1) if correlation else 0.0

    def draw(self) -> float:
        """Return the next number."""
        if not self._correlation:
            return self._random.random()
        self._z = self._correlation * self._z + self._noise_scale * self._random.gauss(0, 1)
        return 0.5 * math.erfc(-self._z / math.sqrt(2))


class TwoStateMarkov:
    """A Markov chain of a good and a bad state; `enter` and `leave` are the probabilities of the bad one.

    The initial state is drawn from the stationary distribution, so that short runs are not biased towards the
    good state.
    """

    __slots__ = ("_enter", "_leave", "_random", "is_bad")

    def __init__(self, random: Random, enter: float, leave: float) -> None:
        self._random = random
        self._enter = enter
        self._leave = leave
        total = enter + leave
        self.is_bad = bool(total) and random.random() < enter / total

    def step(self) -> bool:
        """Return whether the current state is bad, then step to the next state."""
        was_bad = self.is_bad
        if self._random.random() < (self._leave if was_bad else self._enter):
            self.is_bad = not was_bad
        return was_bad
