"""The kinds of problems, worst first: the name, and the function that finds them in a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from bothends.why.problems import (
    accept_queue,
    close_wait,
    deadlock,
    drops,
    exhaustion,
    held_open,
    reach,
    shared_port,
    stalled,
    unread,
    vanished,
)
from bothends.why.problems.problem import Problem
from bothends.why.wait_graph import WaitGraph

FINDERS: Final[dict[str, Callable[[WaitGraph], Iterator[Problem]]]] = {
    deadlock.KIND: deadlock.find,
    stalled.KIND: stalled.find,
    shared_port.KIND: shared_port.find,
    accept_queue.KIND: accept_queue.find,
    unread.KIND: unread.find,
    held_open.KIND: held_open.find,
    vanished.KIND: vanished.find,
    exhaustion.KIND: exhaustion.find,
    close_wait.KIND: close_wait.find,
    drops.KIND: drops.find,
    reach.KIND: reach.find,
}
# These describe a consequence: they are left out where a worse problem concerns all of their sockets.
_CONSEQUENCES: Final = {stalled.KIND, accept_queue.KIND, unread.KIND}


def find_problems(graph: WaitGraph) -> list[Problem]:
    """Return all problems, worst first: by kind, then the longest, then information."""
    found: list[Problem] = []
    explained: set[int] = set()
    for kind, find in FINDERS.items():
        problems = list(find(graph))
        if kind in _CONSEQUENCES:
            problems = [problem for problem in problems if not problem.inodes <= explained]
        found += sorted(problems, key=lambda each: -(each.seconds or 0.0))
        for problem in problems:
            explained |= problem.inodes
    return sorted(found, key=lambda each: not each.is_wrong)
