"""The socket table: every socket that the kernel reports, and the processes that own it. Linux.

    table.py      joins the parts: `read_table`
    entry.py      a socket as a value
    sock_diag.py  the kernel's table, over netlink
    proc_net.py   the same from /proc/PID/net, for kernels that refuse netlink and network namespaces that
                  cannot be entered
    owners.py     which process owns which socket, and by which descriptor
    options.py    the options that differ from those of a new socket
    rows.py       a socket as a row of text

This is the only reader of sock_diag(7) and /proc/net; `check` and `wire` use it too.

Rank 2: imports `errors`, `escaping`, processes and namespaces from `osutil`, option names from `sockets`.
"""

from bothends.socket_table.entry import (
    EntryAddress,
    SocketEntry,
    SocketMemory,
    SocketOwner,
    SocketTimer,
    TcpInfo,
)
from bothends.socket_table.table import SocketTable, read_table

__all__ = [
    "EntryAddress",
    "SocketEntry",
    "SocketMemory",
    "SocketOwner",
    "SocketTable",
    "SocketTimer",
    "TcpInfo",
    "read_table",
]
