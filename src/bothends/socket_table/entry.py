"""A socket as a value, from wherever it was read.

Pure. Names of programs and of UNIX sockets are hostile bytes: they are escaped here (`text.escape`), where
they come in, so that whoever shows a row need not think of it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Final

from bothends.escaping import escape

# linux/tcp_states.h, in the words of RFC 9293 section 3.3.2.
TCP_STATES: Final = {
    1: "ESTABLISHED",
    2: "SYN-SENT",
    3: "SYN-RECEIVED",
    4: "FIN-WAIT-1",
    5: "FIN-WAIT-2",
    6: "TIME-WAIT",
    7: "CLOSED",
    8: "CLOSE-WAIT",
    9: "LAST-ACK",
    10: "LISTEN",
    11: "CLOSING",
    12: "SYN-RECEIVED",  # TCP_NEW_SYN_RECV: the kernel's own half of it, with no socket yet
    13: "BOUND",  # TCP_BOUND_INACTIVE: bound, and neither listening nor connecting
}
# All others use the same numbers, and mean less by them (linux/net.h: SS_UNCONNECTED, SS_CONNECTED).
NON_TCP_STATES: Final = {1: "CONNECTED", 2: "CONNECTING", 7: "UNCONNECTED", 10: "LISTEN"}

FAMILIES: Final = {
    int(socket.AF_UNIX): "unix",
    int(socket.AF_INET): "inet",
    int(socket.AF_INET6): "inet6",
    int(socket.AF_NETLINK): "netlink",
    int(socket.AF_PACKET): "packet",
    int(socket.AF_VSOCK): "vsock",
}
TYPES: Final = {
    int(socket.SOCK_STREAM): "stream",
    int(socket.SOCK_DGRAM): "dgram",
    int(socket.SOCK_RAW): "raw",
    int(socket.SOCK_SEQPACKET): "seqpacket",
}
PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6", 132: "sctp", 136: "udplite", 262: "mptcp"}


@dataclass(frozen=True, slots=True)
class EntryAddress:
    """One end. `host`: an address, a path, `@name` for an abstract one; empty for none. `port`: 0 for none.

    `interface`: the index that a link-local address belongs to, 0 for none.
    """

    host: str = ""
    port: int = 0
    interface: int = 0


@dataclass(frozen=True, slots=True)
class SocketOwner:
    """A process that has the socket open. `name` is escaped."""

    pid: int
    name: str
    fd: int

    def __str__(self) -> str:
        return f"{self.name}[{self.pid}] fd {self.fd}"


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """What struct tcp_info says (tcp(7)): times in microseconds, windows in segments, sizes in bytes.

    `ssthresh` is None while nothing has been lost. `congestion` is the algorithm's name.
    """

    rtt: int
    rttvar: int
    rto: int
    cwnd: int
    ssthresh: int | None
    mss: int
    pmtu: int
    unacked: int
    retransmissions: int
    congestion: str = ""
    min_rtt: int | None = None
    bytes_acked: int | None = None
    bytes_received: int | None = None
    delivery_rate: int | None = None  # bytes a second


@dataclass(slots=True)
class SocketEntry:
    """One line of the table.

    `state`: of TCP as in RFC 9293; of others UNCONNECTED, CONNECTED or LISTEN. `recv_queue` and
    `send_queue`: bytes not read and not acknowledged; of a listener, connections that wait for accept and
    how many may (listen(2)). None: not told. `peer_inode`: the other end of a UNIX socket. `inode` is
    0 once no process has it (TIME-WAIT, say). `options`: those that differ from a fresh socket's; None
    where they can't be read.
    """

    family: str
    type: str
    protocol: str
    state: str
    local: EntryAddress
    peer: EntryAddress
    inode: int
    recv_queue: int | None = None
    send_queue: int | None = None
    uid: int | None = None
    peer_inode: int = 0
    shutdown: str = ""  # "read", "write" or "both": shutdown(2), by either end
    tcp: TcpInfo | None = None
    owners: list[SocketOwner] = field(default_factory=list)
    options: dict[str, str] | None = None

    @property
    def kind(self) -> str:
        """`tcp`, `tcp6`, `udp`, `unix stream`, ...: how a person would call it."""
        if self.family in ("inet", "inet6"):
            return (self.protocol or self.type) + ("6" if self.family == "inet6" else "")
        return f"{self.family} {self.type}".strip()


def state_name(protocol: str, number: int) -> str:
    """The word for a state's number; the number itself for one that is new."""
    table = TCP_STATES if protocol in ("tcp", "mptcp", "sctp") else NON_TCP_STATES
    return table.get(number, str(number))


def shutdown_name(bits: int) -> str:
    """RCV_SHUTDOWN and SEND_SHUTDOWN of the kernel's net/sock.h as words; empty for neither."""
    return {1: "read", 2: "write", 3: "both"}.get(bits, "")


def unix_name(name: bytes) -> str:
    """The name of a UNIX socket, escaped: a path, or `@name` for an abstract one (unix(7))."""
    if name.startswith(b"\0"):
        return "@" + escape(name[1:])
    return escape(name.rstrip(b"\0"))
