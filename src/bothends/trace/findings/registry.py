"""The table of rules. A rule is a function that finds mistakes in a trace, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from bothends.trace.findings import connecting, datagrams, kernel_reasons, path, processes, streams
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.model import Call, KernelEvent, Packet, ProcessEvent, Trace

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


# Findings of these rules follow from a finding of the rule, if they concern the same connection or process.
EXPLAINS: Final[dict[str, frozenset[str]]] = {}


def run_rules(trace: Trace) -> list[Finding]:
    """Run all rules on a trace. Returns their findings in the order of the table, grouped by `EXPLAINS`."""
    trace_index = TraceIndex(trace)
    found = [finding for rule in RULES.values() for finding in rule(trace_index)]
    return group([kernel_reasons.confirm(each, trace_index) for each in found], trace_index)


def group(findings: Sequence[Finding], trace_index: TraceIndex) -> list[Finding]:
    """Put findings that follow from others under them, each under the first one that explains it."""
    extents = [_extent(each, trace_index) for each in findings]
    parents: dict[int, int] = {}
    for at, finding in enumerate(findings):
        for other, root in enumerate(findings):
            explains = finding.rule in EXPLAINS.get(root.rule, ()) and other != at
            if at < other and root.rule in EXPLAINS.get(finding.rule, ()):
                continue  # each explains the other: the earlier one in the table does
            if explains and extents[at] & extents[other] and not _is_ancestor(at, other, parents):
                parents[at] = other
                break
    children: dict[int, list[int]] = {}
    for at, parent in parents.items():
        children.setdefault(parent, []).append(at)

    def with_consequences(at: int) -> Finding:
        below = tuple(map(with_consequences, children.get(at, ())))
        return replace(findings[at], consequences=(*findings[at].consequences, *below))

    return [with_consequences(at) for at in range(len(findings)) if at not in parents]


def _is_ancestor(at: int, of: int, parents: dict[int, int]) -> bool:
    while of in parents:
        of = parents[of]
        if of == at:
            return True
    return False


def _extent(finding: Finding, trace_index: TraceIndex) -> set[tuple[str, int]]:
    """Return what a finding concerns: its connections, at both ends, and its processes."""
    sockets = set(finding.sockets)
    processes = set() if finding.process is None else {finding.process}
    for number in finding.evidence:
        match trace_index.trace.event(number):
            case Call() as call:
                processes.add(call.process)
                sockets |= set() if call.socket is None else {call.socket}
            case Packet() as packet:
                sockets |= {each for each in (packet.sender, packet.receiver) if each is not None}
            case ProcessEvent() as event:
                processes.add(event.process)
            case KernelEvent() as dropped:
                sockets |= set() if dropped.socket is None else {dropped.socket}
    sockets |= {peer for each in sockets if (peer := trace_index.peer_of(each)) is not None}
    return {("socket", each) for each in sockets} | {("process", each) for each in processes}
