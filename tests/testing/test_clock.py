from __future__ import annotations

import pytest

from bothends.testing import FakeClock


def test_it_moves_when_it_is_told_to() -> None:
    clock = FakeClock()
    before = clock()
    assert clock() == before > 0
    clock.advance(1.5)
    assert clock() == before + 1.5


def test_it_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="past"):
        FakeClock().advance(-1)
