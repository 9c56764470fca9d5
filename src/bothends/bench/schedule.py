"""When requests are due.

Pure: no clock. Times are nanoseconds after the beginning of a run, in ascending order and without end.

In a closed loop there is no schedule: a request is sent when an answer has come, so a server that stalls
is asked less, and the requests that would have met the stall are never sent. An open loop sends at times
that were fixed beforehand, whatever the server does, and latency counts from those times (Gil Tene's
"coordinated omission").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bothends.errors import UsageError

Arrivals: TypeAlias = Literal["fixed", "poisson"]
Times: TypeAlias = NDArray[np.int64]

CHUNK: Final = 4096
"""Times that are made at once: so many cost about as much as one would."""

SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Schedule:
    """An open loop: `rate` requests a second, evenly ("fixed") or as independent callers would come
    ("poisson": exponential gaps).

    The same seed gives the same times. `first` and `step` take every `step`-th request, from `first` on:
    several generators share one schedule so.

    Raises CallerError for a rate that isn't positive.
    """

    rate: float
    arrivals: Arrivals = "fixed"
    seed: int = 1
    first: int = 0
    step: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1e9:
            raise UsageError(f"a rate is between 0 and a thousand million a second, not {self.rate:g}")

    def times(self) -> Iterator[Times]:
        """Chunks of times, in nanoseconds."""
        chunks = self._poisson() if self.arrivals == "poisson" else self._fixed()
        if self.step == 1:
            yield from chunks
            return
        skip = self.first
        for chunk in chunks:
            yield chunk[skip :: self.step]
            skip = (skip - len(chunk)) % self.step

    def _fixed(self) -> Iterator[Times]:
        # From the number of the request and not from the time before: rounding does not add up.
        number = 0
        while True:
            yield ((np.arange(number, number + CHUNK) * float(SECOND)) / self.rate).astype(np.int64)
            number += CHUNK

    def _poisson(self) -> Iterator[Times]:
        chance = np.random.default_rng(self.seed)
        last = 0.0
        while True:
            times = last + np.cumsum(chance.exponential(SECOND / self.rate, CHUNK))
            last = float(times[-1])
            yield times.astype(np.int64)
