"""Resources that are nearly used up: the descriptors of a process, the local ports towards one server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from bothends.socket_table import SocketEntry
from bothends.why import phrases
from bothends.why.problems.problem import Problem
from bothends.why.wait_graph import WaitGraph

KIND = "exhaustion"
_NEARLY: Final = 0.9
_MIN_LEFT: Final = 8  # descriptors: a small limit is reached at once, so a fraction of it tells little


def find(graph: WaitGraph) -> Iterator[Problem]:
    """Yield each process without spare descriptors, and each destination without spare local ports."""
    for process in graph.snapshot.processes.values():
        if process.open_files is None or process.file_limit is None:
            continue
        left = process.file_limit - process.open_files
        if process.open_files >= _NEARLY * process.file_limit or left < _MIN_LEFT:
            sockets = graph.sockets_of(process.pid)
            yield Problem(
                KIND,
                f"{process} has {process.open_files:,} of {process.file_limit:,} descriptors open, of which"
                f" {len(sockets):,} are sockets: accept(), connect() and open() will fail with EMFILE.",
                seen=f"/proc/{process.pid}/fd, RLIMIT_NOFILE",
                remedy="It must close what it does not use, or be started with a higher ulimit -n.",
                pids=frozenset([process.pid]),
            )
    yield from _ports(graph)


def _ports(graph: WaitGraph) -> Iterator[Problem]:
    limits = graph.snapshot.limits
    available = limits.last_port - limits.first_port + 1
    by_target: dict[tuple[int, str, str, int], list[SocketEntry]] = defaultdict(list)
    for entry in graph.snapshot.sockets:
        is_client = limits.first_port <= entry.local.port <= limits.last_port and entry.state != "LISTEN"
        if is_client and entry.protocol == "tcp" and entry.peer.port:
            by_target[entry.netns, entry.local.host, entry.peer.host, entry.peer.port].append(entry)
    for entries in by_target.values():
        used = len({entry.local.port for entry in entries})
        if used < _NEARLY * available:
            continue
        waiting = sum(entry.state == "TIME-WAIT" for entry in entries)
        yield Problem(
            KIND,
            f"{used:,} of {available:,} local ports for connections to {phrases.address(entries[0].peer)} are"
            f" in use, {waiting:,} of them in TIME-WAIT: connect() will fail with EADDRNOTAVAIL.",
            seen=f"the socket table; net.ipv4.ip_local_port_range is {limits.first_port} to"
            f" {limits.last_port}",
            remedy="Keep connections open and reuse them.",
            ports=frozenset([entries[0].peer.port]),
        )
