"""Listeners that only this machine, or only one address family, can reach.

Information, because that is often intended. It is the answer if the question is about the port, and no client
has reached it.
"""

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
    """Yield one statement for all listeners on loopback addresses, and one for those of one family."""
    groups = [group for group in _by_port(graph) if all(each.owners for each in group)]
    local = [group for group in groups if _is_local(group)]
    ipv4 = [group for group in groups if _is_ipv4(group)]
    ipv6 = [group for group in groups if _is_ipv6(group)]
    if local:
        yield _list(graph, local, "only this machine can reach (loopback addresses)")
    if ipv4:
        yield _list(graph, ipv4, "only IPv4 clients can reach (0.0.0.0, and no socket on ::)")
    if ipv6:
        yield _list(graph, ipv6, "only IPv6 clients can reach (IPV6_V6ONLY, and no socket on 0.0.0.0)")


def find_port(graph: WaitGraph, port: int) -> Iterator[Problem]:
    """Yield what keeps clients from the listeners of one port: their address, or their family."""
    for group in _by_port(graph, port):
        owners = graph.owners(group[0])
        verb = "listen" if len(owners) > 1 else "listens"
        place = f"{phrases.names(owners)} {verb} on {_addresses(group)} only"
        if _is_local(group):
            refused = "connect() from another machine, container or network namespace fails (ECONNREFUSED)"
            remedy = (
                'If such clients should reach it, it must bind its address on their network, or "0.0.0.0".'
            )
        elif _is_ipv6(group):
            refused = (
                "with IPV6_V6ONLY: connect() to an IPv4 address, such as 127.0.0.1, fails (ECONNREFUSED)"
            )
            remedy = (
                'If such clients should reach it, it must set IPV6_V6ONLY to 0, or listen on "0.0.0.0" too.'
            )
        elif _is_ipv4(group):
            refused = "connect() to an IPv6 address, such as ::1, fails (ECONNREFUSED)"
            remedy = 'If such clients should reach it, it must listen on "::" with IPV6_V6ONLY set to 0.'
        else:
            continue
        is_used = any(
            entry.local.port == port and entry.netns == group[0].netns and entry.peer.port
            for entry in graph.snapshot.sockets
        )
        is_wrong = not is_used and not _is_ipv4(group)
        yield Problem(
            KIND,
            f"{place}{' ' if refused.startswith('with') else ': '}{refused}.",
            seen="; ".join(phrases.owner(graph, each) for each in group)
            + ("; no client is connected now" if not is_used else ""),
            inferred="that clients try to connect from elsewhere: refused attempts leave no trace here"
            if is_wrong
            else "",
            remedy=remedy,
            is_wrong=is_wrong,
            **concerns(group),
        )


def _by_port(graph: WaitGraph, port: int = 0) -> list[list[SocketEntry]]:
    """Return the TCP listeners of each port and network namespace, or those of one port."""
    found: dict[tuple[int, int], list[SocketEntry]] = defaultdict(list)
    for entry in graph.snapshot.sockets:
        if entry.state == "LISTEN" and entry.protocol == "tcp" and port in (0, entry.local.port):
            found[entry.netns, entry.local.port].append(entry)
    return list(found.values())


def _is_local(group: list[SocketEntry]) -> bool:
    return all(is_loopback(each.local.host) for each in group)


def _is_ipv4(group: list[SocketEntry]) -> bool:
    return {each.local.host for each in group} == {_ANY_IPV4}


def _is_ipv6(group: list[SocketEntry]) -> bool:
    return all(each.local.host == _ANY_IPV6 and each.v6only for each in group)


def _addresses(group: list[SocketEntry]) -> str:
    return " and ".join(dict.fromkeys(phrases.address(each.local) for each in group[:_SHOWN]))


def _list(graph: WaitGraph, groups: list[list[SocketEntry]], text: str) -> Problem:
    entries = [each for group in groups for each in group]
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
