"""`osutil/wakeup.py`: a pipe that wakes a thread waiting in select() or poll()."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from bothends.osutil.wakeup import WakeupPipe

MORE_THAN_A_PIPE_HOLDS = 70_000


@pytest.fixture
def pipe() -> Iterator[WakeupPipe]:
    pipe = WakeupPipe()
    yield pipe
    pipe.close()


def is_readable(pipe: WakeupPipe) -> bool:
    return bool(select.select([pipe], [], [], 0)[0])


def test_wake_makes_it_readable_until_drained(pipe: WakeupPipe) -> None:
    assert not is_readable(pipe)
    pipe.wake()
    pipe.wake()
    assert is_readable(pipe)
    assert pipe.drain() == 2
    assert not is_readable(pipe)
    assert pipe.drain() == 0  # and doesn't block


def test_wake_never_blocks_and_drain_empties_a_full_pipe(pipe: WakeupPipe) -> None:
    for _ in range(MORE_THAN_A_PIPE_HOLDS):
        pipe.wake()
    pipe.drain()
    assert not is_readable(pipe)


def test_wake_after_close_does_nothing() -> None:
    pipe = WakeupPipe()
    pipe.close()
    pipe.wake()
