"""The table: sockets joined with who holds them, and with what can't be seen said.

    rows of the kernel (sock_diag.py, else proc_net.py)  +  holders (owners.py)  +  options (options.py)

The parts are read one after another, so a socket that comes or goes meanwhile may lack its other half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bothends.errors import SystemRefused
from bothends.socket_table import owners, proc_net, sock_diag
from bothends.socket_table.entry import SocketRow
from bothends.socket_table.options import Reader
from bothends.socket_table.owners import Holders

_ORDER: Final = ("inet", "inet6", "unix")


@dataclass(slots=True)
class Table:
    """`sockets`, those that listen first in each family; `notes`: a line for all that can't be seen."""

    sockets: list[SocketRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_table(
    pids: Sequence[int] = (),
    reader: Reader | None = None,
    wanted: Callable[[SocketRow], bool] = lambda row: True,
) -> Table:
    """The sockets of these processes, or of all, that are wanted.

    `reader`: one to go on with, for a table that is read often.

    Raises SystemRefused where a process that is asked for may not be looked into.
    """
    reader = reader or Reader()
    held = owners.find(pids)
    table = Table()
    rows = _rows(held, table.notes)
    by_inode = {row.inode: row for row in rows if row.inode}
    for row in rows:
        row.holders = held.of.get(row.inode, [])
        if row.peer_inode and (other := by_inode.get(row.peer_inode)):
            row.peer = other.local
    table.sockets = [row for row in rows if row.holders] if pids else rows
    table.sockets += _unlisted(held, by_inode, reader, table.notes)
    table.sockets = sorted(filter(wanted, table.sockets), key=_place)
    _add_options(table, reader)
    _say_what_is_hidden(table, held)
    return table


def _rows(held: Holders, notes: list[str]) -> list[SocketRow]:
    """The rows of our network namespace, and of each other one in which a holder is."""
    try:
        rows = list(sock_diag.dump())
    except SystemRefused as error:
        notes.append(f"{error}; /proc/net is read instead, which has no round trips and no UNIX peers")
        rows = list(proc_net.read())
    ours = owners.network_of("self")
    elsewhere = {network: pid for pid, network in held.network.items() if network not in (0, ours)}
    known = {row.inode for row in rows}
    for pid in elsewhere.values():
        rows += [row for row in proc_net.read(Path(f"/proc/{pid}/net")) if row.inode not in known]
    if elsewhere:
        notes.append("sockets in other network namespaces are read from /proc: without round trips")
    return rows


def _unlisted(
    held: Holders, listed: dict[int, SocketRow], reader: Reader, notes: list[str]
) -> list[SocketRow]:
    """Sockets that are held and in no table: unbound ones, and families that have none."""
    found, unknown = [], 0
    for inode, its in held.of.items():
        if inode in listed:
            continue
        row = reader.row(its[0], inode)
        if row is None:
            unknown += 1
        else:
            row.holders = its
            found.append(row)
    if unknown:
        notes.append(f"{_sockets(unknown)} in no table of the kernel, and not ours to look into")
    return found


def _add_options(table: Table, reader: Reader) -> None:
    unread = 0
    for row in table.sockets:
        if row.holders:
            row.options = reader.options(row.holders[0])
            unread += row.options is None
    if unread:
        notes = "the system lets nobody but a tracer read them (kernel.yama.ptrace_scope, or another user's)"
        table.notes.append(f"options of {_sockets(unread)} not read: {notes}")


def _say_what_is_hidden(table: Table, held: Holders) -> None:
    # Inode 0: no process has it any more, TIME-WAIT for example.
    nobody = sum(1 for row in table.sockets if row.inode and not row.holders)
    if nobody and held.hidden:
        table.notes.append(
            f"{_sockets(nobody)} without a process: {held.hidden:,} don't let us look into them; root may"
        )


def _sockets(number: int) -> str:
    return f"{number:,} socket{'' if number == 1 else 's'}"


def _place(row: SocketRow) -> tuple[int, str, bool, int, str, int]:
    family = _ORDER.index(row.family) if row.family in _ORDER else len(_ORDER)
    return family, row.kind, row.state != "LISTEN", row.local.port, row.local.host, row.inode
