"""Listeners that only this machine, or only one address family, can reach. Information, not a problem."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from bothends.socket_table import SocketEntry
from bothends.why import phrases
from bothends.why.problems.problem import Problem, concerns
from bothends.why.wait_graph import WaitGraph, is_loopback

KIND = "reach"
_ANY_IPV4, _ANY_IPV6 = "0.0.0.0", "::"
_SHOWN: Final = 8


def find(graph: WaitGraph) -> Iterator[Problem]:
    """Yield one statement for all listeners on loopback addresses, and one for those without IPv6."""
    by_port: dict[tuple[int, int], list[SocketEntry]] = defaultdict(list)
    for entry in graph.snapshot.sockets:
        if entry.state == "LISTEN" and entry.protocol == "tcp" and entry.owners:
            by_port[entry.netns, entry.local.port].append(entry)
    local = [group for group in by_port.values() if all(is_loopback(each.local.host) for each in group)]
    ipv4 = [group for group in by_port.values() if {each.local.host for each in group} == {_ANY_IPV4}]
    if local:
        text = "only this machine can reach (loopback addresses)"
        yield _problem(graph, [each for group in local for each in group], text)
    if ipv4:
        text = "only IPv4 clients can reach (0.0.0.0, and no socket on ::)"
        yield _problem(graph, [each for group in ipv4 for each in group], text)


def _problem(graph: WaitGraph, entries: list[SocketEntry], text: str) -> Problem:
    shown = [
        f"{phrases.address(entry.local)} ({phrases.names(graph.owners(entry))})" for entry in entries[:_SHOWN]
    ]
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return Problem(
        KIND,
        f"{phrases.count(len(entries), 'listener')} that {text}: {', '.join(shown)}{more}.",
        seen="",
        is_wrong=False,
        **concerns(entries),
    )
