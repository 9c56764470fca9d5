"""What threads do at a moment, for the rules about hangs."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.standstill import Moment
from bothends.trace.model import Call, DescriptorChange, Point, Trace, TracedProcess

SECOND = 1_000_000_000


@pytest.mark.parametrize(("exited", "is_there"), [(None, True), (9.01, True), (1.5, False)])
def test_a_thread_that_exited_after_the_freeze_counts_as_there(exited: float | None, is_there: bool) -> None:
    """The snapshot is taken a little after the last event; the threads may have been ended by then."""
    trace = Trace()
    trace.processes[1] = TracedProcess(1, 101, "server")
    trace.add(Point(Call(1, 1, 7, "epoll_wait", SECOND, 2 * SECOND, timeout_ns=SECOND, result=0)))
    trace.add(Point(Call(2, 1, 8, "accept", SECOND)))
    trace.frozen_at = 9 * SECOND
    if exited is not None:
        trace.thread_exits[7] = round(exited * SECOND)
    threads = Moment(TraceIndex(trace), round(9.02 * SECOND)).threads
    assert (7 in threads) == is_there
    assert 8 in threads


def test_a_descriptor_that_was_closed_after_the_freeze_is_held() -> None:
    trace = Trace()
    trace.processes[1] = TracedProcess(1, 101, "server")
    trace.frozen_at = 9 * SECOND
    for at, is_open in ((SECOND, True), (round(9.01 * SECOND), False)):
        trace.add_descriptor_change(DescriptorChange(at, 5, 1, 4, is_open=is_open))
    trace_index = TraceIndex(trace)
    assert trace_index.holders_at(5, round(9.02 * SECOND)) == {1: {4}}
    assert trace_index.holders_at(5, SECOND // 2) == {}
