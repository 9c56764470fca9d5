"""Name the process that holds a port or a socket file, for an error EADDRINUSE."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bothends.errors import BothendsError, SystemCallFailed

if TYPE_CHECKING:
    from bothends.endpoints import Endpoint
    from bothends.socket_table import SocketEntry

_PROTOCOLS: Final = {"tls": "tcp", "mptcp": "tcp"}  # of schemes whose protocol has another name
_MAX_NAMES: Final = 3
_WILDCARDS: Final = ("", "0.0.0.0", "::")


def with_holder(error: BothendsError) -> BothendsError:
    """Return an error that names the process which holds the port; the same error if that is not known."""
    if not isinstance(error, SystemCallFailed) or error.errno != errno.EADDRINUSE:
        return error
    from bothends.endpoints import Endpoint

    try:
        holder = find_holder(Endpoint.parse(error.target))
    except BothendsError:
        return error
    if not holder:
        return error
    rest = error.hint.partition("; ")[2]
    return replace(error, hint="; ".join(filter(None, (holder, rest))))


def find_holder(endpoint: Endpoint) -> str:
    """Return which process has the endpoint's port or path, and how; an empty string if that is not known."""
    from bothends.socket_table import read_table
    from bothends.socket_table.owners import netns_inode

    netns = netns_inode("self")
    table = read_table(
        predicate=lambda entry: entry.netns == netns and _is_same(entry, endpoint), with_options=False
    )
    found = sorted(table.sockets, key=lambda entry: (entry.state != "LISTEN", not entry.owners))
    if not found:
        return ""
    entry = found[0]
    state = f"{entry.state} " if entry.state != "UNCONNECTED" else ""
    local = f":{entry.local.port}" if entry.local.port else ""
    host = f"[{entry.local.host}]" if ":" in entry.local.host else entry.local.host
    names = list(dict.fromkeys(f"{owner.name}[{owner.pid}]" for owner in entry.owners))
    shown = ", ".join(names[:_MAX_NAMES]) + (" and others" if names[_MAX_NAMES:] else "")
    if not shown:
        shown = "no process" if not entry.inode else "a process of another user"
    return f"{shown} has it: {entry.kind} {state}{host}{local}"


def _is_same(entry: SocketEntry, endpoint: Endpoint) -> bool:
    if endpoint.is_unix:
        return entry.family == "unix" and bool(entry.local.host) and entry.local.host == endpoint.path
    scheme = _PROTOCOLS.get(endpoint.scheme, endpoint.scheme)
    if endpoint.port is None or entry.kind.removesuffix("6") != scheme or entry.local.port != endpoint.port:
        return False
    if entry.state == "TIME-WAIT":
        return False
    hosts = entry.local.host, endpoint.host
    is_name = not endpoint.host.replace(".", "").isdigit() and ":" not in endpoint.host
    return is_name or hosts[0] == hosts[1] or any(each in _WILDCARDS for each in hosts)
