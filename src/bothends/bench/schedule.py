"""Send times of an open loop.

Pure: no clock. Times are nanoseconds after the start of a run, ascending and infinite.

A closed loop has no schedule: each response triggers the next request. A stalled server then gets fewer
requests, and the requests that would have hit the stall are never sent (Gil Tene's "coordinated omission").
An open loop sends at predetermined times whatever the server does, and latency counts from those times.
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
"""Times generated at once, because a numpy array of them costs about as much as a single time."""

SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Schedule:
    """An open loop of `rate` requests per second.

    `arrivals`: "fixed" is evenly spaced; "poisson" has exponential gaps, as from independent clients. The
    same seed gives the same times. `first` and `step` select every `step`-th request from `first` on, so that
    several generators can share a schedule.

    Raises UsageError if the rate is not positive, or above 1e9.
    """

    rate: float
    arrivals: Arrivals = "fixed"
    seed: int = 1
    first: int = 0
    step: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1e9:
            raise UsageError(f"the rate must be above 0 and at most 1e9 per second, not {self.rate:g}")

    def times(self) -> Iterator[Times]:
        """Yield arrays of times in nanoseconds, without end."""
        chunks = self._poisson() if self.arrivals == "poisson" else self._fixed()
        if self.step == 1:
            yield from chunks
            return
        skip = self.first
        for chunk in chunks:
            yield chunk[skip :: self.step]
            skip = (skip - len(chunk)) % self.step

    def _fixed(self) -> Iterator[Times]:
        # Computed from the request number, not from the previous time, so that rounding does not accumulate.
        number = 0
        while True:
            yield ((np.arange(number, number + CHUNK) * float(SECOND)) / self.rate).astype(np.int64)
            number += CHUNK

    def _poisson(self) -> Iterator[Times]:
        random = np.random.default_rng(self.seed)
        last = 0.0
        while True:
            times = last + np.cumsum(random.exponential(SECOND / self.rate, CHUNK))
            last = float(times[-1])
            yield times.astype(np.int64)
