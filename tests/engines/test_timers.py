"""The timing wheel: asked in time, never early, and nothing left behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bothends.engines.timers import TICK, TimerWheel


class Item:
    """Something with a moment, which can be put off."""

    def __init__(self, due: float) -> None:
        self.slot: int | None = None
        self.due = due
        self.fired: list[float] = []

    def on_timer(self, now: float) -> float | None:
        if now < self.due:
            return self.due
        self.fired.append(now)
        return None


def test_wheel_empty_has_no_timeout() -> None:
    assert TimerWheel[Item]().next_timeout(5.0) is None


@given(st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=30))
def test_wheel_fires_once_within_two_ticks(dues: list[float]) -> None:
    wheel: TimerWheel[Item] = TimerWheel()
    items = [Item(due) for due in dues]
    for item in items:
        wheel.schedule(item, item.due)
    now = 0.0
    while (wait := wheel.next_timeout(now)) is not None:
        now += max(wait, TICK / 4)
        wheel.run_expired(now)
    for item in items:
        assert len(item.fired) == 1
        assert item.due <= item.fired[0] <= item.due + 2 * TICK


def test_wheel_postponed_item_fires_at_new_deadline() -> None:
    wheel: TimerWheel[Item] = TimerWheel()
    item = Item(1.0)
    wheel.schedule(item, 1.0)
    item.due = 3.0  # activity: nothing is moved in the wheel
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

    class Murderer(Item):
        def on_timer(self, now: float) -> float | None:
            wheel.cancel(victim)
            return super().on_timer(now)

    victim = Item(1.0)
    murderer = Murderer(1.0)
    wheel.schedule(murderer, 1.0)
    wheel.schedule(victim, 1.0)
    wheel.run_expired(1.1)
    assert murderer.fired == [1.1]
    assert wheel.next_timeout(1.1) is None
