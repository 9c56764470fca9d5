"""The socket table: entries joined with their owners and options, and notes on anything not visible.

    entries (sock_diag.py, else proc_net.py)  +  owners (owners.py)  +  options (options.py)

The parts are read one after another, so a socket that is opened or closed in between may be incomplete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bothends.errors import SystemCallFailed
from bothends.socket_table import proc_net, sock_diag
from bothends.socket_table.entry import SocketEntry
from bothends.socket_table.options import OptionReader
from bothends.socket_table.owners import SocketOwners, find_owners, netns_inode, netns_name

_FAMILY_ORDER: Final = ("inet", "inet6", "unix")


@dataclass(slots=True)
class SocketTable:
    """`sockets`, listeners first in each family; `notes`: one line for each kind of missing information."""

    sockets: list[SocketEntry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_table(
    pids: Sequence[int] = (),
    reader: OptionReader | None = None,
    predicate: Callable[[SocketEntry], bool] = lambda entry: True,
    *,
    with_options: bool = True,
    with_ownerless: bool = False,
) -> SocketTable:
    """Read the sockets of these processes, or of all processes, that satisfy `predicate`.

    `reader`: pass the same one for each call if the table is read repeatedly, because it caches defaults.
    `with_options`: False reads the kernel's tables only. No descriptor is duplicated, so there are neither
    options nor the sockets that are in no table, such as unbound ones.

    `with_ownerless`: with `pids`, also the sockets of our network namespace that no process has open, such as
    those in TIME-WAIT.

    Raises SystemCallFailed if one of `pids` is not accessible.
    """
    reader = reader or OptionReader()
    owners = find_owners(pids)
    table = SocketTable()
    entries = _read_entries(owners, table.notes)
    by_inode = {entry.inode: entry for entry in entries if entry.inode}
    for entry in entries:
        entry.owners = owners.by_inode.get(entry.inode, [])
        if entry.peer_inode and (other := by_inode.get(entry.peer_inode)):
            entry.peer = other.local
    here = netns_inode("self") if with_ownerless else None
    table.sockets = [
        entry for entry in entries
        if not pids or entry.owners or (entry.netns == here and not entry.inode)
    ]  # fmt: skip
    if with_options:
        table.sockets += _unlisted(owners, by_inode, reader, table.notes)
    table.sockets = sorted(filter(predicate, table.sockets), key=_sort_key)
    if with_options:
        _add_options(table, reader)
    _note_hidden(table, owners)
    return table


def _read_entries(owners: SocketOwners, notes: list[str]) -> list[SocketEntry]:
    """Return the entries of our network namespace and of the other namespaces of owners."""
    try:
        entries = list(sock_diag.dump())
    except SystemCallFailed as error:
        notes.append(f"{error}; /proc/net was read instead, which has no RTT and no peers of UNIX sockets")
        entries = list(proc_net.read())
    own_netns = netns_inode("self")
    for entry in entries:
        entry.netns = own_netns
    other_netns = {netns: pid for pid, netns in owners.netns_by_pid.items() if netns not in (0, own_netns)}
    known = {entry.inode for entry in entries if entry.inode}
    incomplete = False
    for netns, pid in other_netns.items():
        try:
            found = sock_diag.dump_namespace(pid)
        except OSError:
            found, incomplete = list(proc_net.read(Path(f"/proc/{pid}/net"))), True
        name = netns_name(netns)
        for entry in found:
            # UNIX sockets are listed by the namespace they were created in, but belong to none.
            if entry.inode not in known:
                entry.netns, entry.namespace = netns, name
                entries.append(entry)
    if incomplete:
        notes.append("sockets in other network namespaces are shown without RTT (read from /proc)")
    return entries


def _unlisted(
    owners: SocketOwners, listed: dict[int, SocketEntry], reader: OptionReader, notes: list[str]
) -> list[SocketEntry]:
    """Return the owned sockets that are in no table: unbound ones, and families without a table."""
    found, unknown = [], 0
    for inode, socket_owners in owners.by_inode.items():
        if inode in listed:
            continue
        entry = reader.entry(socket_owners[0], inode)
        if entry is None:
            unknown += 1
        else:
            entry.owners = socket_owners
            found.append(entry)
    if unknown:
        notes.append(f"{_format_count(unknown)} not shown: in no kernel table, and not accessible")
    return found


def _add_options(table: SocketTable, reader: OptionReader) -> None:
    unread = 0
    for entry in table.sockets:
        if entry.owners:
            entry.options = reader.options(entry.owners[0])
            unread += entry.options is None
    if unread:
        reason = "only a tracer of the process can read them (kernel.yama.ptrace_scope, or another user's)"
        table.notes.append(f"no options for {_format_count(unread)}: {reason}")


def _note_hidden(table: SocketTable, owners: SocketOwners) -> None:
    # Inode 0: no process owns the socket any more, TIME-WAIT for example.
    hidden = sum(1 for entry in table.sockets if entry.inode and not entry.owners)
    if hidden and owners.unreadable:
        verb = "has" if hidden == 1 else "have"
        advice = "run as root to see all processes" if os.geteuid() else "not all processes are readable"
        table.notes.append(f"{_format_count(hidden)} {verb} no visible owner: {advice}")


def _format_count(number: int) -> str:
    return f"{number:,} socket{'' if number == 1 else 's'}"


def _sort_key(entry: SocketEntry) -> tuple[int, str, bool, int, str, int]:
    family = _FAMILY_ORDER.index(entry.family) if entry.family in _FAMILY_ORDER else len(_FAMILY_ORDER)
    return family, entry.kind, entry.state != "LISTEN", entry.local.port, entry.local.host, entry.inode
