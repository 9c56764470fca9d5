"""The limit on costly requests of a student."""

from __future__ import annotations

import pytest

from bothends.lab.request_rate import RequestRate, TooManyRequests


def test_some_requests_in_a_while_and_one_at_a_time() -> None:
    now = [0.0]
    rate = RequestRate(2, 10.0, lambda: now[0])

    def refused(visitor: int) -> bool:
        try:
            with rate.turn(visitor):
                return False
        except TooManyRequests:
            return True

    assert [refused(1), refused(1), refused(1), refused(2)] == [False, False, True, False]
    now[0] = 9.9
    assert refused(1)
    now[0] = 10.0
    with rate.turn(1), pytest.raises(TooManyRequests), rate.turn(1):
        pass
    assert [refused(1), refused(1)] == [False, True]  # the one that was refused counts for nothing
    rate.forget(1)
    assert not refused(1)
