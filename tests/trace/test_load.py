"""When programs are too fast to be analysed meanwhile."""

from __future__ import annotations

import pytest

from bothends.trace import load
from bothends.trace.load import MAX_LAG, WINDOW, AnalysisLoad


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    now = [100.0]
    monkeypatch.setattr(load.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("waited", "events", "lag", "is_too_high"),
    [
        (0.1, 50_000, 0.0, True),
        (0.5, 50_000, 0.0, False),  # it waits for input half of the time
        (0.1, 5_000, 0.0, False),  # something else takes the time
        (0.5, 20_000, MAX_LAG + 0.1, True),  # the machine is so busy that reading is late
        (0.5, 1_000, MAX_LAG + 0.1, False),
    ],
)
def test_load_is_judged_in_windows(
    clock: list[float], waited: float, events: int, lag: float, is_too_high: bool
) -> None:
    judged = AnalysisLoad()
    for _ in range(3):
        judged.add(waited * WINDOW / 2, round(events * WINDOW / 2), lag)
        clock[0] += WINDOW / 2
        assert not judged.is_too_high()
        judged.add(waited * WINDOW / 2, round(events * WINDOW / 2), lag)
        clock[0] += WINDOW / 2 + 1e-6
        assert judged.is_too_high() == is_too_high
    clock[0] += WINDOW + 1e-6
    assert not judged.is_too_high()  # nothing came in this one
