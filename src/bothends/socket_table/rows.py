"""Sockets as rows of text, for `bothends sockets` and the lab."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from bothends.socket_table.entry import EntryAddress, SocketEntry

COLUMNS: Final = ("kind", "state", "recv", "send", "local", "peer", "process", "more")


def cells(row: SocketEntry) -> list[str]:
    """Return a socket's row of the table."""
    return [
        row.kind,
        row.state,
        "-" if row.recv_queue is None else str(row.recv_queue),
        "-" if row.send_queue is None else str(row.send_queue),
        format_address(row, row.local, row.inode),
        format_address(row, row.peer, row.peer_inode) if has_peer(row) else "-",
        ", ".join(map(str, row.owners)) or "-",
        ", ".join(details(row)),
    ]


def has_peer(row: SocketEntry) -> bool:
    """Whether the socket has a peer."""
    return bool(row.peer.port or row.peer_inode or (row.family == "unix" and row.peer.host))


def format_address(row: SocketEntry, address: EntryAddress, inode: int) -> str:
    """Return an address as text. An unnamed UNIX socket is shown by its inode: `#4711`."""
    if row.family == "inet6":
        zone = ""
        if address.interface:
            with contextlib.suppress(OSError):
                zone = f"%{socket.if_indextoname(address.interface)}"
        return f"[{address.host}{zone}]:{address.port}"
    if row.family in ("inet", "vsock"):
        return f"{address.host}:{address.port}"
    return address.host or (f"#{inode}" if inode else "-")


def details(row: SocketEntry) -> list[str]:
    """Return the items of the last column: another network namespace, TCP metrics, then socket options."""
    items = [f"in {row.namespace}"] if row.namespace else []
    if row.shutdown and row.state not in ("CLOSED", "TIME-WAIT"):
        items.append(f"shutdown {row.shutdown}")
    if (tcp := row.tcp) is not None and tcp.rtt:
        items.append(f"rtt {tcp.rtt / 1000:.3g}±{tcp.rttvar / 1000:.3g} ms")
        items.append(f"cwnd {tcp.cwnd}")
        if tcp.retransmissions:
            items.append(f"retransmitted {tcp.retransmissions}")
    for name, value in sorted((row.options or {}).items()):
        items.append(name if value == "1" else f"{name}={value}")
    return items
