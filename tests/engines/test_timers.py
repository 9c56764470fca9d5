"""The timing wheel: asked in time, never early, and nothing left behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bothends.engines.timers import TICK, Wheel


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


def test_an_empty_wheel_lets_its_loop_sleep() -> None:
    assert Wheel[Item]().wait(5.0) is None


@given(st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=30))
def test_each_fires_once_no_earlier_and_at_most_two_ticks_late(dues: list[float]) -> None:
    wheel: Wheel[Item] = Wheel()
    items = [Item(due) for due in dues]
    for item in items:
        wheel.schedule(item, item.due)
    now = 0.0
    while (wait := wheel.wait(now)) is not None:
        now += max(wait, TICK / 4)
        wheel.fire(now)
    for item in items:
        assert len(item.fired) == 1
        assert item.due <= item.fired[0] <= item.due + 2 * TICK


def test_a_limit_that_is_put_off_costs_nothing_until_its_first_moment() -> None:
    wheel: Wheel[Item] = Wheel()
    item = Item(1.0)
    wheel.schedule(item, 1.0)
    item.due = 3.0  # activity: nothing is moved in the wheel
    wheel.fire(1.1)
    assert not item.fired
    wheel.fire(3.1)
    assert item.fired == [3.1]


def test_an_earlier_moment_replaces_a_later_one() -> None:
    wheel: Wheel[Item] = Wheel()
    item = Item(1.0)
    wheel.schedule(item, 60.0)
    wheel.schedule(item, 1.0)
    wheel.fire(1.1)
    assert item.fired == [1.1]
    assert wheel.wait(1.1) is None


def test_what_is_cancelled_leaves_nothing() -> None:
    wheel: Wheel[Item] = Wheel()
    for _ in range(1000):
        item = Item(60.0)
        wheel.schedule(item, 60.0)
        wheel.cancel(item)
    assert wheel.wait(0.0) is None


def test_one_may_cancel_another_while_both_are_due() -> None:
    wheel: Wheel[Item] = Wheel()

    class Murderer(Item):
        def on_timer(self, now: float) -> float | None:
            wheel.cancel(victim)
            return super().on_timer(now)

    victim = Item(1.0)
    murderer = Murderer(1.0)
    wheel.schedule(murderer, 1.0)
    wheel.schedule(victim, 1.0)
    wheel.fire(1.1)
    assert murderer.fired == [1.1]
    assert wheel.wait(1.1) is None
