"""Closed descriptors in the sets of select() and poll(): on traces made by hand."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.closed_in_sets import closed_in_set
from tests.trace.test_waits import AT_SERVER, LISTENER, WaitingTrace


@pytest.mark.parametrize(
    ("name", "members", "count", "is_found"),
    [
        ("select", (4,), 3, True),
        ("poll", (4,), 3, True),
        ("poll", (4, 9), 3, False),  # 9 may be a pipe that is readable
        ("select", (7,), 3, False),
        ("select", (4,), 1, False),  # the program waits again
    ],
)
def test_closed_member_of_a_set_is_named(
    name: str, members: tuple[int, ...], count: int, is_found: bool
) -> None:
    trace = WaitingTrace()
    trace.call(1, "close", 0.1, 0.2, socket=AT_SERVER, descriptor=4)
    for number in range(count):
        at = 0.3 + number / 10
        error = "EBADF" if name == "select" else ""
        wait = trace.call(
            1, name, at, at + 0.01, sockets=(LISTENER,), descriptors_waited=members, error=error
        )
        wait.result = -1 if error else 1
    trace.call(1, name, 2, sockets=(LISTENER,))
    trace.trace.freeze()
    assert any(closed_in_set(TraceIndex(trace.trace))) is is_found
