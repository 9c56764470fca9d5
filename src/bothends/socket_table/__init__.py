"""The socket table: every socket that this machine tells of, and whose it is. Linux.

    table.py      joins the rest: `read_table`
    entry.py        a socket as a value
    sock_diag.py  the kernel's own table, over netlink
    proc_net.py   the same from /proc/PID/net, for other network namespaces and kernels that refuse
    owners.py    which process holds which socket, by which descriptor
    options.py    the options that differ from a fresh socket's

Rank 2: imports errors, text and the names of options from `sockets`.
"""

from bothends.socket_table.entry import EntryAddress, SocketEntry, SocketOwner, TcpInfo
from bothends.socket_table.table import SocketTable, read_table

__all__ = ["EntryAddress", "SocketEntry", "SocketOwner", "SocketTable", "TcpInfo", "read_table"]
