"""Peers that do not answer: data, or a SYN, that is sent again and again and not acknowledged.

When the kernel gives up: after the time that tcp_retries2 retransmissions take, with a timeout that starts at
200 ms and doubles up to 120 s (tcp(7), ip-sysctl): 15 take 924.6 s. TCP_USER_TIMEOUT may shorten it, which is
not visible here. A SYN is repeated after 1 s, 2 s, 4 s, ..., tcp_syn_retries times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.socket_table import SocketEntry
from bothends.why import phrases
from bothends.why.model import KernelLimits
from bothends.why.problems.problem import Problem, concerns
from bothends.why.wait_graph import WaitGraph

KIND = "vanished"
_MIN_RTO, _MAX_RTO = 0.2, 120.0  # seconds: TCP_RTO_MIN, TCP_RTO_MAX of net/tcp.h
_MIN_RETRANSMITS: Final = 3  # fewer are an ordinary loss
_MIN_PROBES: Final = 2


def find(graph: WaitGraph) -> Iterator[Problem]:
    """Yield each connection whose peer has stopped answering, and each attempt that is not answered."""
    for entry in graph.snapshot.sockets:
        if entry.timer is None or not entry.inode or entry.tcp is None:
            continue
        if entry.state == "SYN-SENT":
            if entry.timer.retries >= 1 and graph.target(entry) is None:
                yield _connecting(graph, entry)
        elif entry.timer.kind == "retransmit" and entry.tcp.retransmits >= _MIN_RETRANSMITS:
            yield _silent(graph, entry)
        elif entry.timer.kind == "keepalive" and entry.tcp.probes >= _MIN_PROBES:
            yield _keepalive(graph, entry)


def seconds_until_failure(limits: KernelLimits, elapsed: float) -> float:
    """Return the seconds until the kernel reports ETIMEDOUT for unacknowledged data."""
    total, timeout = 0.0, _MIN_RTO
    for _ in range(limits.retries + 1):
        total += timeout
        timeout = min(timeout * 2, _MAX_RTO)
    return max(0.0, total - elapsed)


def connect_seconds_left(limits: KernelLimits, retries: int, expires: float) -> float:
    """Return the seconds until connect() fails, after a number of repeated SYNs."""
    intervals = [1.0] * limits.linear_connect_retries + [2.0**n for n in range(limits.connect_retries + 1)]
    return expires + sum(intervals[retries + 1 :])


def unacknowledged_seconds(entry: SocketEntry) -> float:
    """Return for how long the oldest data has not been acknowledged, from the number of retransmissions."""
    if entry.tcp is None or entry.timer is None:
        return 0.0
    timeout = entry.tcp.rto / 1e6
    elapsed = timeout - entry.timer.expires_ms / 1000
    for _ in range(entry.tcp.retransmits):
        timeout = max(timeout / 2, _MIN_RTO)
        elapsed += timeout
    return max(0.0, min(elapsed, entry.tcp.last_ack_received_ms / 1000))


def _connecting(graph: WaitGraph, entry: SocketEntry) -> Problem:
    retries = entry.timer.retries if entry.timer else 0
    expires = entry.timer.expires_ms / 1000 if entry.timer else 0.0
    left = connect_seconds_left(graph.snapshot.limits, retries, expires)
    return Problem(
        KIND,
        f"{phrases.names(graph.owners(entry))} tries to connect to {phrases.address(entry.peer)}, and nothing"
        f" answers: its SYN was sent {retries + 1} times. The kernel gives up in about"
        f" {phrases.duration(left)}.",
        seen=f"{phrases.owner(graph, entry)}: SYN-SENT, {phrases.connection(entry)}",
        inferred="that the host is off, does not exist, or drops the packets (a firewall): a host without a"
        " server on the port would refuse",
        **concerns([entry]),
    )


def _silent(graph: WaitGraph, entry: SocketEntry) -> Problem:
    elapsed = unacknowledged_seconds(entry)
    left = seconds_until_failure(graph.snapshot.limits, elapsed)
    retransmits = entry.tcp.retransmits if entry.tcp else 0
    received = entry.tcp.last_ack_received_ms / 1000 if entry.tcp else 0.0
    unacked = entry.send_queue or 0
    return Problem(
        KIND,
        f"{phrases.address(entry.peer)} does not answer {phrases.names(graph.owners(entry))}:"
        f" {phrases.size(unacked)} {'has' if unacked == 1 else 'have'} not been acknowledged for about"
        f" {phrases.duration(elapsed)}, although sent again {retransmits} times. The kernel gives up in about"
        f" {phrases.duration(left)}.",
        seen=f"{phrases.owner(graph, entry)}: {phrases.connection(entry)}, last acknowledgement"
        f" {phrases.duration(received)} ago, last data"
        f" {phrases.duration(entry.tcp.last_data_received_ms / 1000 if entry.tcp else 0.0)} ago",
        inferred="the times, from the number of retransmissions; TCP_USER_TIMEOUT may end it sooner",
        seconds=elapsed,
        **concerns([entry]),
    )


def _keepalive(graph: WaitGraph, entry: SocketEntry) -> Problem:
    probes = entry.tcp.probes if entry.tcp else 0
    received = entry.tcp.last_ack_received_ms / 1000 if entry.tcp else 0.0
    return Problem(
        KIND,
        f"{phrases.address(entry.peer)} does not answer the keepalive probes of"
        f" {phrases.names(graph.owners(entry))}: {probes} in a row.",
        seen=f"{phrases.owner(graph, entry)}: {phrases.connection(entry)}, last acknowledgement"
        f" {phrases.duration(received)} ago",
        seconds=received,
        **concerns([entry]),
    )
