"""Turns go round by key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from bothends.lab.fair_queue import FairQueue, QueuePlace


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_next_turn_is_for_the_key_that_waited_the_longest_since_its_last() -> None:
    async def main() -> None:
        queue, order = FairQueue(1), []
        first = await queue.enter("busy")

        async def take(key: str) -> None:
            place = await queue.enter(key)
            order.append(key)
            await asyncio.sleep(0)
            place.release()

        tasks = [asyncio.create_task(take(key)) for key in ("busy", "busy", "a", "b", "busy")]
        await settle()
        first.release()
        await asyncio.gather(*tasks)
        assert order == ["a", "b", "busy", "busy", "busy"]

    run(main)


def test_places_are_bounded_and_positions_are_reported() -> None:
    async def main() -> None:
        queue = FairQueue(2)
        positions: dict[str, list[int]] = {"c": [], "d": []}
        places = [await queue.enter("a"), await queue.enter("b")]
        waiting = [asyncio.create_task(queue.enter(key, positions[key].append)) for key in ("c", "d")]
        await settle()
        assert (queue.position("c"), queue.position("d"), queue.position("a")) == (0, 1, None)
        assert not any(each.done() for each in waiting)
        places[0].release()
        places[0].release()  # it is idempotent
        await settle()
        assert [each.done() for each in waiting] == [True, False]
        assert (positions["c"][0], positions["d"]) == (0, [1, 0])
        places[1].release()
        assert isinstance(await waiting[1], QueuePlace)

    run(main)


@pytest.mark.parametrize("granted", [False, True])
def test_cancelled_entry_takes_no_place(granted: bool) -> None:
    async def main() -> None:
        queue = FairQueue(1)
        place = await queue.enter("a")
        cancelled = asyncio.create_task(queue.enter("b"))
        other = asyncio.create_task(queue.enter("c"))
        await settle()
        if granted:  # it has its place already, and its task has not run yet
            place.release()
        cancelled.cancel()
        if not granted:
            place.release()
        (await other).release()
        (await queue.enter("d")).release()
        assert cancelled.cancelled()

    run(main)
