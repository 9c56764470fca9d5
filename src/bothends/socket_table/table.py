"""The table: sockets joined with who holds them, and with what can't be seen said.

    rows of the kernel (sock_diag.py, else proc_net.py)  +  holders (owners.py)  +  options (options.py)

The parts are read one after another, so a socket that comes or goes meanwhile may lack its other half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bothends.errors import SystemCallFailed
from bothends.socket_table import proc_net, sock_diag
from bothends.socket_table.entry import SocketEntry
from bothends.socket_table.options import OptionReader
from bothends.socket_table.owners import SocketOwners, find_owners, netns_inode

_FAMILY_ORDER: Final = ("inet", "inet6", "unix")


@dataclass(slots=True)
class SocketTable:
    """`sockets`, those that listen first in each family; `notes`: a line for all that can't be seen."""

    sockets: list[SocketEntry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_table(
    pids: Sequence[int] = (),
    reader: OptionReader | None = None,
    predicate: Callable[[SocketEntry], bool] = lambda row: True,
) -> SocketTable:
    """The sockets of these processes, or of all, that are wanted.

    `reader`: one to go on with, for a table that is read often.

    Raises SystemRefused where a process that is asked for may not be looked into.
    """
    reader = reader or OptionReader()
    held = find_owners(pids)
    table = SocketTable()
    rows = _read_entries(held, table.notes)
    by_inode = {row.inode: row for row in rows if row.inode}
    for row in rows:
        row.owners = held.by_inode.get(row.inode, [])
        if row.peer_inode and (other := by_inode.get(row.peer_inode)):
            row.peer = other.local
    table.sockets = [row for row in rows if row.owners] if pids else rows
    table.sockets += _unlisted(held, by_inode, reader, table.notes)
    table.sockets = sorted(filter(predicate, table.sockets), key=_sort_key)
    _add_options(table, reader)
    _note_hidden(table, held)
    return table


def _read_entries(owners: SocketOwners, notes: list[str]) -> list[SocketEntry]:
    """The rows of our network namespace, and of each other one in which a holder is."""
    try:
        rows = list(sock_diag.dump())
    except SystemCallFailed as error:
        notes.append(f"{error}; /proc/net is read instead, which has no round trips and no UNIX peers")
        rows = list(proc_net.read())
    ours = netns_inode("self")
    elsewhere = {network: pid for pid, network in owners.netns_by_pid.items() if network not in (0, ours)}
    known = {row.inode for row in rows}
    for pid in elsewhere.values():
        rows += [row for row in proc_net.read(Path(f"/proc/{pid}/net")) if row.inode not in known]
    if elsewhere:
        notes.append("sockets in other network namespaces are read from /proc: without round trips")
    return rows


def _unlisted(
    owners: SocketOwners, listed: dict[int, SocketEntry], reader: OptionReader, notes: list[str]
) -> list[SocketEntry]:
    """Sockets that are held and in no table: unbound ones, and families that have none."""
    found, unknown = [], 0
    for inode, its in owners.by_inode.items():
        if inode in listed:
            continue
        row = reader.entry(its[0], inode)
        if row is None:
            unknown += 1
        else:
            row.owners = its
            found.append(row)
    if unknown:
        notes.append(f"{_format_count(unknown)} in no table of the kernel, and not ours to look into")
    return found


def _add_options(table: SocketTable, reader: OptionReader) -> None:
    unread = 0
    for row in table.sockets:
        if row.owners:
            row.options = reader.options(row.owners[0])
            unread += row.options is None
    if unread:
        notes = "the system lets nobody but a tracer read them (kernel.yama.ptrace_scope, or another user's)"
        table.notes.append(f"options of {_format_count(unread)} not read: {notes}")


def _note_hidden(table: SocketTable, owners: SocketOwners) -> None:
    # Inode 0: no process has it any more, TIME-WAIT for example.
    nobody = sum(1 for row in table.sockets if row.inode and not row.owners)
    if nobody and owners.unreadable:
        table.notes.append(
            f"{_format_count(nobody)} without a process: {owners.unreadable:,} don't let us look into them; root may"
        )


def _format_count(number: int) -> str:
    return f"{number:,} socket{'' if number == 1 else 's'}"


def _sort_key(row: SocketEntry) -> tuple[int, str, bool, int, str, int]:
    family = _FAMILY_ORDER.index(row.family) if row.family in _FAMILY_ORDER else len(_FAMILY_ORDER)
    return family, row.kind, row.state != "LISTEN", row.local.port, row.local.host, row.inode
