"""`engines/timers.py`: the timing wheel fires in time, never early, and keeps no removed item."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bothends.engines.timers import TICK, TimerWheel


class Item:
    """An item with a deadline that can be postponed."""

    def __init__(self, deadline: float) -> None:
        self.slot: int | None = None
        self.deadline = deadline
        self.fired: list[float] = []

    def on_timer(self, now: float) -> float | None:
        if now < self.deadline:
            return self.deadline
        self.fired.append(now)
        return None


def test_wheel_empty_has_no_timeout() -> None:
    assert TimerWheel[Item]().next_timeout(5.0) is None


@given(st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=30))
def test_wheel_fires_once_within_two_ticks(deadlines: list[float]) -> None:
    wheel: TimerWheel[Item] = TimerWheel()
    items = [Item(deadline) for deadline in deadlines]
    for item in items:
        wheel.schedule(item, item.deadline)
    now = 0.0
    while (timeout := wheel.next_timeout(now)) is not None:
        now += max(timeout, TICK / 4)
        wheel.run_expired(now)
    for item in items:
        assert len(item.fired) == 1
        assert item.deadline <= item.fired[0] <= item.deadline + 2 * TICK


def test_wheel_postponed_item_fires_at_new_deadline() -> None:
    wheel: TimerWheel[Item] = TimerWheel()
    item = Item(1.0)
    wheel.schedule(item, 1.0)
    item.deadline = 3.0  # postponed by activity, without a change in the wheel
    wheel.run_expired(1.1)
    assert not item.fired
    wheel.run_expired(3.1)
    assert item.fired == [3.1]


def test_wheel_earlier_deadline_replaces_later() -> None:
    wheel: TimerWheel[Item] = TimerWheel()
    item = Item(1.0)
    wheel.schedule(item, 60.0)
    wheel.schedule(item, 1.0)
    wheel.run_expired(1.1)
    assert item.fired == [1.1]
    assert wheel.next_timeout(1.1) is None


def test_wheel_cancel_leaves_nothing() -> None:
    wheel: TimerWheel[Item] = TimerWheel()
    for _ in range(1000):
        item = Item(60.0)
        wheel.schedule(item, 60.0)
        wheel.cancel(item)
    assert wheel.next_timeout(0.0) is None


def test_wheel_cancel_of_due_item_prevents_firing() -> None:
    wheel: TimerWheel[Item] = TimerWheel()

    class Canceller(Item):
        def on_timer(self, now: float) -> float | None:
            wheel.cancel(cancelled)
            return super().on_timer(now)

    cancelled = Item(1.0)
    canceller = Canceller(1.0)
    wheel.schedule(canceller, 1.0)
    wheel.schedule(cancelled, 1.0)
    wheel.run_expired(1.1)
    assert canceller.fired == [1.1]
    assert wheel.next_timeout(1.1) is None
