"""The table of rules. A rule is a function that finds mistakes in a trace, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from bothends.trace.findings import connecting, datagrams, path, processes, streams
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.model import Trace

RULES: Final[dict[str, Callable[[TraceIndex], Iterator[Finding]]]] = {
    "swapped-port": connecting.swapped_port,
    "port-in-use": connecting.port_in_use,
    "refused": connecting.refused,
    "backlog-overflow": connecting.backlog_overflow,
    "one-recv-per-message": streams.one_recv_per_message,
    "two-sends-one-read": streams.two_sends_one_read,
    "short-send": streams.short_send,
    "closed-with-unread-data": streams.closed_with_unread_data,
    "eof-ignored": streams.eof_ignored,
    "write-after-close": streams.write_after_close,
    "busy-loop": streams.busy_loop,
    "nagle-delayed-ack": streams.nagle_delayed_ack,
    "idle-client": streams.idle_client,
    "truncated-datagram": datagrams.truncated_datagram,
    "unanswered-datagram": datagrams.unanswered_datagram,
    "children-not-waited-for": processes.children_never_waited_for,
    "never-closed": processes.descriptor_never_closed,
    "retransmission": path.retransmission,
    "spurious-retransmission": path.spurious_retransmission,
    "zero-window": path.zero_window,
    "delayed-ack": path.delayed_ack,
    "mtu-black-hole": path.mtu_black_hole,
}


def run_rules(trace: Trace) -> list[Finding]:
    """Run all rules on a trace. Returns their findings in the order of the table."""
    trace_index = TraceIndex(trace)
    return [finding for rule in RULES.values() for finding in rule(trace_index)]
