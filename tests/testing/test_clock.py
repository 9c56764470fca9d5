from __future__ import annotations

import pytest

from bothends.testing import FakeClock


def test_clock_advances() -> None:
    clock = FakeClock()
    before = clock()
    assert clock() == before > 0
    clock.advance(1.5)
    assert clock() == before + 1.5


def test_clock_negative_advance_raises() -> None:
    with pytest.raises(ValueError, match="past"):
        FakeClock().advance(-1)
