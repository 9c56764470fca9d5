"""The kernel's socket table over netlink: sock_diag(7).

1. Each family and protocol takes one request with NLM_F_DUMP. The reply has one message per socket, several
   in a datagram, up to NLMSG_DONE (netlink(7)). All numbers are in host byte order, except ports and
   addresses, which are in network byte order.
2. A dump is not a snapshot: sockets may be opened and closed while it is read.
3. It covers the network namespace of the netlink socket only.
4. This is written against the kernel structs because pyroute2's DiagSocket drops the NUL that distinguishes
   an abstract name from a path, hides refusals, and is fifty times slower.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from bothends.errors import SystemCallFailed
from bothends.escaping import escape
from bothends.osutil.namespaces import enter_network
from bothends.socket_table.entry import (
    FAMILIES,
    PROTOCOLS,
    TYPES,
    EntryAddress,
    SocketEntry,
    SocketMemory,
    SocketTimer,
    TcpInfo,
    shutdown_name,
    state_name,
    unix_name,
)

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY: Final = 20  # linux/sock_diag.h
_NLM_FLAGS: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RECV_SIZE: Final = 1 << 18  # bytes: the kernel sends at most 32 KiB at a time, unless one message is larger
_TIMEOUT: Final = 5.0  # seconds: the kernel replies at once or not at all

_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")  # rtattr: length, type
_ALL_STATES: Final = (1 << 14) - 1

# linux/inet_diag.h
_INET_REQUEST: Final = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, extensions, states
_INET_MESSAGE: Final = struct.Struct("=BBBB")  # family, state, timer, retransmissions
_SOCKET_ID: Final = struct.Struct("!HH16s16s")  # ports and addresses
_INET_REST: Final = struct.Struct("=I8xIIIII")  # interface, cookie, expires, both queues, uid, inode
_INET_SIZE: Final = _INET_MESSAGE.size + _SOCKET_ID.size + _INET_REST.size
_INFO, _CONGESTION, _MEMORY, _SHUTDOWN, _V6ONLY = 2, 4, 7, 8, 11
_EXTENSIONS: Final = 1 << (_INFO - 1) | 1 << (_CONGESTION - 1) | 1 << (_MEMORY - 1)
_TIMERS: Final = {1: "retransmit", 2: "keepalive", 3: "time-wait", 4: "probe"}  # net/ipv4/inet_diag.c
# linux/sock_diag.h, SK_MEMINFO_*: receive queue and limit, send queue and limit, ..., drops
_SOCKET_MEMORY: Final = struct.Struct("=4I16xI")
_QUEUED_OFFSET: Final = 20  # SK_MEMINFO_WMEM_QUEUED
_REQUEST_PROTOCOL: Final = 3  # INET_DIAG_REQ_PROTOCOL: for protocols above 255, such as Multipath TCP
_RAW: Final = 255  # IPPROTO_RAW: raw sockets of every protocol

# linux/unix_diag.h
_UNIX_REQUEST: Final = struct.Struct("=BBHIIIII")  # family, protocol, -, states, inode, what to show, cookie
_UNIX_MESSAGE: Final = struct.Struct("=BBBxI8x")  # family, type, state, inode, cookie
_UNIX_SHOW: Final = 0x01 | 0x04 | 0x10 | 0x20 | 0x40  # name, peer, queues, memory, uid
_UNIX_SHOW_MEMORY: Final = 0x20
_UNIX_NAME, _UNIX_PEER, _UNIX_QUEUES, _UNIX_MEMORY, _UNIX_SHUTDOWN, _UNIX_UID = 0, 2, 4, 5, 6, 7

# linux/packet_diag.h, linux/vm_sockets_diag.h
_PACKET_REQUEST: Final = struct.Struct("=BBHII8x")
_PACKET_MESSAGE: Final = struct.Struct("=BBHI8x")  # family, type, protocol, inode, cookie
_VSOCK_REQUEST: Final = struct.Struct("=BBHII8x")
_VSOCK_MESSAGE: Final = struct.Struct("=BBBBIIIII8x")  # family, type, state, shutdown, cids and ports, inode

# struct tcp_info (linux/tcp.h) up to tcpi_total_retrans: its size in Linux 2.6. One call for all words,
# because a machine may have 100,000 sockets.
_TCP_INFO: Final = struct.Struct("=2xBB4x24I")
# From offset 120 on: bytes acknowledged and received, notsent, min_rtt, delivery rate.
_TCP_INFO_LATER: Final = struct.Struct("=QQ8xII8xQ")
_TCP_INFO_LATER_OFFSET: Final = 120
_LATER_ENDS: Final = (8, 16, 28, 32, 48)  # where each of these five ends, for kernels that have fewer
_INFINITE_SSTHRESH: Final = 0x7FFFFFFF  # TCP_INFINITE_SSTHRESH


def dump() -> Iterator[SocketEntry]:
    """Yield every socket of this network namespace. Families that the kernel does not support are skipped.

    Raises SystemCallFailed if the kernel refuses to list TCP sockets.
    """
    yield from _inet(socket.AF_INET, socket.IPPROTO_TCP, required=True)
    for family in (socket.AF_INET, socket.AF_INET6):
        for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP, 132, 136, _RAW, 262):
            if (family, protocol) != (socket.AF_INET, socket.IPPROTO_TCP):
                yield from _inet(family, protocol)
    for body in _query(_UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _UNIX_SHOW, 0, 0)):
        yield parse_unix(body)
    for body in _query(_PACKET_REQUEST.pack(socket.AF_PACKET, 0, 0, 0, 0)):
        yield parse_packet(body)
    for body in _query(_VSOCK_REQUEST.pack(socket.AF_VSOCK, 0, 0, _ALL_STATES, 0)):
        yield parse_vsock(body)


def dump_namespace(pid: int) -> list[SocketEntry]:
    """Return every socket of a process's network namespace.

    A thread enters the namespace, so that the caller's stays as it is (setns(2)). Raises OSError if the
    kernel does not permit that: it takes CAP_SYS_ADMIN.
    """
    found: list[SocketEntry] = []
    refused: list[OSError] = []

    def read() -> None:
        try:
            descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                enter_network(descriptor)
            finally:
                os.close(descriptor)
            found.extend(dump())
        except OSError as error:
            refused.append(error)
        except SystemCallFailed as error:
            refused.append(OSError(error.errno, str(error)))

    thread = threading.Thread(target=read, name="sock_diag")
    thread.start()
    thread.join()
    if refused:
        raise refused[0]
    return found


def _inet(family: int, protocol: int, *, required: bool = False) -> Iterator[SocketEntry]:
    request = _INET_REQUEST.pack(family, protocol & 0xFF, _EXTENSIONS, _ALL_STATES)
    if protocol > 0xFF:
        request += _ATTRIBUTE.pack(8, _REQUEST_PROTOCOL) + struct.pack("=I", protocol)
    for body in _query(request, required=required):
        yield parse_inet(protocol, body)


def open_socket(timeout: float = _TIMEOUT) -> socket.socket:
    """Open a socket for `query`. It stays with the network namespace it is opened in. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    sock.settimeout(timeout)
    return sock


def query(sock: socket.socket, request: bytes) -> Iterator[bytes]:
    """Send a dump request and yield the bodies of the messages in the reply.

    Exhaust it before the next query on the same socket, which would otherwise read the rest of this reply.

    Raises:
        OSError: the kernel refused the request, or did not reply within the socket's timeout.
    """
    sock.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_FLAGS, 1, 0) + request)
    while True:
        for kind, body in messages(sock.recv(_RECV_SIZE)):
            if kind == _NLMSG_ERROR:
                (number,) = struct.unpack_from("=i", body)
                raise OSError(-number, "netlink")
            if kind == _NLMSG_DONE:
                return
            yield body


def tcp_send_queues(sock: socket.socket, family: int, states: int) -> list[tuple[int, int]]:
    """Return the state and the unacknowledged bytes of each TCP socket in one of these states.

    `states` is a bit mask: 1 << number (linux/tcp_states.h). Raises OSError, as `query` does.
    """
    request = _INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, states)
    return [
        (body[1], _INET_REST.unpack_from(body, _INET_MESSAGE.size + _SOCKET_ID.size)[3])
        for body in query(sock, request)
    ]


def buffer_memory(sock: socket.socket, *, tcp_only: bool = False) -> int:
    """Return the bytes in the buffers of all sockets of a network namespace, or of its TCP sockets.

    `sock` is one of `open_socket`. Raises OSError, as `query` does.
    """
    families, protocols = (socket.AF_INET, socket.AF_INET6), (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
    total = 0
    for family, protocol in itertools.product(families, protocols[:1] if tcp_only else protocols):
        request = _INET_REQUEST.pack(family, protocol, 1 << (_MEMORY - 1), _ALL_STATES)
        for body in query(sock, request):
            total += _buffered(attributes(body[_INET_SIZE:]).get(_MEMORY, b""))
    if not tcp_only:
        request = _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _UNIX_SHOW_MEMORY, 0, 0)
        for body in query(sock, request):
            total += _buffered(attributes(body[_UNIX_MESSAGE.size :]).get(_UNIX_MEMORY, b""))
    return total


def _query(request: bytes, *, required: bool = False) -> Iterator[bytes]:
    try:
        with open_socket() as sock:
            yield from query(sock, request)
    except OSError as error:
        if required:
            raise SystemCallFailed(
                "read", "the socket table (sock_diag)", error.errno or 0, "see sock_diag(7)"
            ) from error


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each netlink message in `data`."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3  # NLMSG_ALIGN


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes after a message, by type (rtnetlink(3))."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def parse_inet(protocol: int, body: bytes) -> SocketEntry:
    """Parse a struct inet_diag_msg and its attributes."""
    family, state, timer, retries = _INET_MESSAGE.unpack_from(body)
    sport, dport, source, destination = _SOCKET_ID.unpack_from(body, _INET_MESSAGE.size)
    rest = _INET_MESSAGE.size + _SOCKET_ID.size
    interface, expires, recv_queue, send_queue, uid, inode = _INET_REST.unpack_from(body, rest)
    attrs = attributes(body[rest + _INET_REST.size :])
    raw = protocol == _RAW
    name = "" if raw else PROTOCOLS[protocol]
    if raw:  # raw sockets have their protocol in place of the port
        protocol, sport, dport = sport, 0, 0
        name = PROTOCOLS.get(protocol, str(protocol))
    width = 4 if family == socket.AF_INET else 16

    def address(packed: bytes, port: int) -> EntryAddress:
        return EntryAddress(socket.inet_ntop(family, packed[:width]), port, interface)

    return SocketEntry(
        family=FAMILIES[family],
        type="raw" if raw else "stream" if protocol in (6, 132, 262) else "dgram",
        protocol=f"raw {name}" if raw else name,
        state=state_name(name, state),
        local=address(source, sport),
        peer=address(destination, dport),
        inode=inode,
        recv_queue=recv_queue,
        send_queue=send_queue,
        uid=uid,
        shutdown=shutdown_name(attrs.get(_SHUTDOWN, b"\0")[0]),
        tcp=parse_tcp_info(attrs) if name == "tcp" and state not in (6, 10, 12) else None,
        timer=SocketTimer(_TIMERS[timer], expires, retries) if timer in _TIMERS else None,
        memory=parse_memory(attrs.get(_MEMORY, b"")),
        v6only=bool(attrs[_V6ONLY][0]) if attrs.get(_V6ONLY) else None,
    )


def parse_memory(data: bytes) -> SocketMemory | None:
    """Parse the values of SK_MEMINFO; None if the kernel did not send them, or sent too few."""
    return SocketMemory(*_SOCKET_MEMORY.unpack_from(data)) if len(data) >= _SOCKET_MEMORY.size else None


def _buffered(data: bytes) -> int:
    """Return the bytes received and not read, and sent and not acknowledged, of the values of SK_MEMINFO."""
    memory = parse_memory(data)
    if memory is None:
        return 0
    queued = int.from_bytes(data[_QUEUED_OFFSET : _QUEUED_OFFSET + 4], sys.byteorder)
    return memory.received + max(memory.sent, queued)


def parse_tcp_info(attrs: dict[int, bytes]) -> TcpInfo | None:
    """Return the struct tcp_info of a connection's attributes; None if it is missing."""
    info = attrs.get(_INFO, b"")
    if len(info) < _TCP_INFO.size:
        return None
    retransmits, probes, *words = _TCP_INFO.unpack_from(info)
    rto, _, mss, _, unacked, _, _, _, _, data_sent, _, data_received, ack_received, pmtu, _, rtt = words[:16]
    rttvar, ssthresh, cwnd, _, _, _, _, retransmissions = words[16:]
    later = info[_TCP_INFO_LATER_OFFSET:]
    missing = _TCP_INFO_LATER.size - len(later)
    values = _TCP_INFO_LATER.unpack_from(later if missing <= 0 else later + bytes(missing))
    bytes_acked, bytes_received, notsent, min_rtt, delivery_rate = (
        values
        if missing <= 0
        else (value if end <= len(later) else None for value, end in zip(values, _LATER_ENDS, strict=True))
    )
    return TcpInfo(
        rtt=rtt,
        rttvar=rttvar,
        rto=rto,
        cwnd=cwnd,
        ssthresh=None if ssthresh >= _INFINITE_SSTHRESH else ssthresh,
        mss=mss,
        pmtu=pmtu,
        unacked=unacked,
        retransmissions=retransmissions,
        congestion=_congestion_name(attrs.get(_CONGESTION, b"")),
        min_rtt=min_rtt,
        bytes_acked=bytes_acked,
        bytes_received=bytes_received,
        delivery_rate=delivery_rate,
        last_data_sent_ms=data_sent,
        last_data_received_ms=data_received,
        last_ack_received_ms=ack_received,
        retransmits=retransmits,
        probes=probes,
        notsent=notsent,
    )


@lru_cache(maxsize=64)
def _congestion_name(data: bytes) -> str:
    return escape(data.rstrip(b"\0"))


def parse_unix(body: bytes) -> SocketEntry:
    """Parse a struct unix_diag_msg and its attributes."""
    family, kind, state, inode = _UNIX_MESSAGE.unpack_from(body)
    attrs = attributes(body[_UNIX_MESSAGE.size :])
    queues = struct.unpack("=II", attrs[_UNIX_QUEUES]) if _UNIX_QUEUES in attrs else (None, None)
    return SocketEntry(
        family=FAMILIES[family],
        type=TYPES.get(kind, str(kind)),
        protocol="",
        state=state_name("", state),
        local=EntryAddress(unix_name(attrs.get(_UNIX_NAME, b""))),
        peer=EntryAddress(),
        inode=inode,
        recv_queue=queues[0],
        send_queue=queues[1],
        uid=_u32_attribute(attrs, _UNIX_UID),
        peer_inode=_u32_attribute(attrs, _UNIX_PEER) or 0,
        shutdown=shutdown_name(attrs.get(_UNIX_SHUTDOWN, b"\0")[0]),
        memory=parse_memory(attrs.get(_UNIX_MEMORY, b"")),
    )


def parse_packet(body: bytes) -> SocketEntry:
    """Parse a struct packet_diag_msg: packet(7)."""
    _, kind, protocol, inode = _PACKET_MESSAGE.unpack_from(body)
    return SocketEntry(
        family="packet",
        type=TYPES.get(kind, str(kind)),
        protocol=f"{protocol:#06x}",  # an EtherType: linux/if_ether.h
        state="UNCONNECTED",
        local=EntryAddress(),
        peer=EntryAddress(),
        inode=inode,
    )


def parse_vsock(body: bytes) -> SocketEntry:
    """Parse a struct vsock_diag_msg: vsock(7)."""
    _, kind, state, shut, cid, port, peer_cid, peer_port, inode = _VSOCK_MESSAGE.unpack_from(body)
    return SocketEntry(
        family="vsock",
        type=TYPES.get(kind, str(kind)),
        protocol="",
        state=state_name("", state),
        local=EntryAddress(str(cid), port),
        peer=EntryAddress(str(peer_cid), peer_port),
        inode=inode,
        shutdown=shutdown_name(shut),
    )


def _u32_attribute(attrs: dict[int, bytes], kind: int) -> int | None:
    return struct.unpack("=I", attrs[kind])[0] if len(attrs.get(kind, b"")) == 4 else None
