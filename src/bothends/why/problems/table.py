"""The kinds of problems, worst first: the name, and the function that finds them in a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from bothends.why.problems import deadlock
from bothends.why.problems.problem import Problem
from bothends.why.wait_graph import WaitGraph

FINDERS: Final[dict[str, Callable[[WaitGraph], Iterator[Problem]]]] = {
    "deadlock": deadlock.find,
}


def find_problems(graph: WaitGraph) -> list[Problem]:
    """Return all problems, worst first: by kind, then the longest, then information."""
    found = [problem for find in FINDERS.values() for problem in find(graph)]
    kinds = list(FINDERS)
    return sorted(found, key=lambda each: (not each.is_wrong, kinds.index(each.kind), -(each.seconds or 0.0)))
