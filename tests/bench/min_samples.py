"""As short as will do: a busy machine may give a generator no turn in a twentieth of a second."""

from __future__ import annotations

from collections.abc import Callable

from bothends.bench.results import Round

DURATIONS = (0.05, 0.3, 2.0, 10.0)


def measure_until_enough(run: Callable[[float], Round], answers: int = 10) -> Round:
    """What `run` gives for the first duration in which so many answers came, good ones or bad."""
    for duration in DURATIONS:
        found = run(duration)
        if found.completed + found.faults.total >= answers or found.ended:
            break
    return found
