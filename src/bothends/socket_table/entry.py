"""A socket as a value, whatever its source.

Pure. Names of programs and of UNIX sockets are untrusted bytes. They are escaped here (`bothends.escaping`),
as they are read, so that callers can print an entry as it is.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Final

from bothends.escaping import escape

# linux/tcp_states.h, with the names of RFC 9293 section 3.3.2.
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
    12: "SYN-RECEIVED",  # TCP_NEW_SYN_RECV: a request in the SYN queue, which has no socket yet
    13: "BOUND",  # TCP_BOUND_INACTIVE: bound, neither listening nor connecting
}
# Other protocols use a subset of these numbers (linux/net.h: SS_UNCONNECTED, SS_CONNECTED).
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
    """The address of one end of a socket.

    `host`: an address, a path, or `@name` for an abstract name; "" for none. `port`: 0 for none. `interface`:
    the interface index of a link-local address, 0 for none.
    """

    host: str = ""
    port: int = 0
    interface: int = 0


@dataclass(frozen=True, slots=True)
class SocketOwner:
    """A process that has the socket open, by descriptor `fd`. `name` is escaped."""

    pid: int
    name: str
    fd: int

    def __str__(self) -> str:
        return f"{self.name}[{self.pid}] fd {self.fd}"


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """The figures of struct tcp_info (tcp(7)): times in microseconds, windows in segments, sizes in bytes.

    `ssthresh` is None until the first loss. `congestion` is the name of the algorithm.
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
    delivery_rate: int | None = None  # bytes per second
    last_data_sent_ms: int = 0  # milliseconds ago; since the connection was opened if there was none
    last_data_received_ms: int = 0
    last_ack_received_ms: int = 0
    retransmits: int = 0  # of the oldest unacknowledged segment, in a row
    probes: int = 0  # unanswered probes: of a zero window, or keepalives
    notsent: int | None = None  # bytes in the send buffer that were never sent


@dataclass(frozen=True, slots=True)
class SocketTimer:
    """The pending timer of a TCP socket: `retransmit`, `keepalive`, `time-wait` or `probe` (zero window)."""

    kind: str
    expires_ms: int
    retries: int


@dataclass(frozen=True, slots=True)
class SocketMemory:
    """Buffer memory of a socket in bytes, overhead included (SK_MEMINFO, sock_diag(7)).

    `drops` counts packets that the socket has discarded, mostly because its receive buffer was full.
    """

    received: int
    receive_limit: int
    sent: int
    send_limit: int
    drops: int


@dataclass(slots=True)
class SocketEntry:
    """One socket of the table.

    `state`: for TCP as in RFC 9293; otherwise UNCONNECTED, CONNECTED or LISTEN.
    `recv_queue`, `send_queue`: unread and unacknowledged bytes; for a listener, the length of the accept
    queue and its limit (listen(2)). None if the kernel does not report them. `inode`: 0 once no process owns
    the socket (TIME-WAIT, for example). `peer_inode`: the other end of a UNIX socket, 0 if unknown.
    `v6only`: whether an IPv6 listener refuses IPv4 (IPV6_V6ONLY), None for other sockets.
    `options`: those that differ from a new socket's; None if they cannot be read.
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
    timer: SocketTimer | None = None
    memory: SocketMemory | None = None
    v6only: bool | None = None
    netns: int = 0  # inode of its network namespace, 0 if unknown
    namespace: str = ""  # the name of that namespace, if it is another one than ours

    @property
    def kind(self) -> str:
        """Protocol and family as users name them: `tcp`, `tcp6`, `udp`, `unix stream`, ..."""
        if self.family in ("inet", "inet6"):
            return (self.protocol or self.type) + ("6" if self.family == "inet6" else "")
        return f"{self.family} {self.type}".strip()


def state_name(protocol: str, number: int) -> str:
    """Return the name of a state number, or the number itself if it is unknown."""
    table = TCP_STATES if protocol in ("tcp", "mptcp", "sctp") else NON_TCP_STATES
    return table.get(number, str(number))


def shutdown_name(bits: int) -> str:
    """Return RCV_SHUTDOWN and SEND_SHUTDOWN (net/sock.h) as a word; "" for neither."""
    return {1: "read", 2: "write", 3: "both"}.get(bits, "")


def unix_name(name: bytes) -> str:
    """Return the name of a UNIX socket, escaped: a path, or `@name` for an abstract name (unix(7))."""
    if name.startswith(b"\0"):
        return "@" + escape(name[1:])
    return escape(name.rstrip(b"\0"))
