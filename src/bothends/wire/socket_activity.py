"""What the sockets of one host are doing: who listens, and whether all that was sent has arrived.

1. A netlink socket, and a file of /proc/net, stay with the namespace in which they were opened: so nobody
   has to go there for a look (setns(2) takes milliseconds).
2. Listeners have a table of their own and are found at once (sock_diag(7)). For all others the kernel goes
   through a hash table of the whole machine, which takes it ten milliseconds and more, and /proc/net/tcp
   always does that. So we ask first whether there are others at all: /proc/net/sockstat has their number.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from typing import Final

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h
_REQUEST: Final = struct.Struct("=IHHIIBBBxI48x")  # nlmsghdr, then inet_diag_req_v2
_BY_FAMILY, _DUMP = 20, 0x301  # SOCK_DIAG_BY_FAMILY; NLM_F_REQUEST | NLM_F_DUMP
_HEADER: Final = struct.Struct("=IHHII")
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_STATE, _SEND_QUEUE = 16 + 1, 16 + 60  # within a message: idiag_state, idiag_wqueue

# linux/tcp_states.h
_FIN_WAIT_1, _TIME_WAIT, _CLOSED, _LAST_ACK, _LISTEN, _CLOSING = 4, 6, 7, 9, 10, 11
_CLOSING_STATES: Final = frozenset({_FIN_WAIT_1, _LAST_ACK, _CLOSING})
_ACTIVE_STATES: Final = (1 << 13) - 2 & ~(1 << _LISTEN | 1 << _TIME_WAIT | 1 << _CLOSED)
_UDP_BOUND: Final = "07"  # TCP_CLOSE, which for UDP means that it is not connected
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class SocketActivity:
    """The socket tables of the namespace that we are in when it is made. Raises OSError."""

    def __init__(self) -> None:
        self._diag = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
        )
        self._diag.settimeout(1)
        self._files: dict[str, int] = {}
        for name in ("udp", "udp6", "sockstat", "sockstat6"):
            with contextlib.suppress(OSError):  # a kernel without IPv6
                path = f"/proc/thread-self/net/{name}"
                self._files[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def has_listener(self) -> bool:
        """Whether a TCP socket listens, or one for datagrams is bound."""
        return bool(self._tcp_sockets(1 << _LISTEN)) or any(
            line.split()[3] == _UDP_BOUND
            for name in ("udp", "udp6")
            for line in self._read(name).splitlines()[1:]
        )

    def has_unacknowledged(self) -> bool:
        """Whether a TCP socket has something that the other end has not acknowledged."""
        used = sum(
            int(number)
            for name in ("sockstat", "sockstat6")
            for number in re.findall(r"^TCP6?: inuse (\d+)", self._read(name), re.MULTILINE)
        )
        if used <= len(self._tcp_sockets(1 << _LISTEN)):
            return False
        return any(
            state in _CLOSING_STATES or waiting for state, waiting in self._tcp_sockets(_ACTIVE_STATES)
        )

    def _tcp_sockets(self, states: int) -> list[tuple[int, int]]:
        """State and unacknowledged bytes of each TCP socket in one of these states, which are bits."""
        found: list[tuple[int, int]] = []
        for family in _FAMILIES:
            with contextlib.suppress(OSError):  # a kernel that tells nothing: nothing to wait for
                found += self._dump_tcp(family, states)
        return found

    def _dump_tcp(self, family: int, states: int) -> list[tuple[int, int]]:
        # To its end, or what is left would be the answer to the next question.
        found: list[tuple[int, int]] = []
        self._diag.send(
            _REQUEST.pack(_REQUEST.size, _BY_FAMILY, _DUMP, 1, 0, family, socket.IPPROTO_TCP, 0, states)
        )
        while True:
            data = self._diag.recv(1 << 18)
            at = 0
            while at < len(data):
                length, kind, _, _, _ = _HEADER.unpack_from(data, at)
                if kind in (_ERROR, _DONE):
                    return found
                found.append((data[at + _STATE], struct.unpack_from("=I", data, at + _SEND_QUEUE)[0]))
                at += (length + 3) & ~3

    def _read(self, name: str) -> str:
        """All of a file, read anew; empty where there is none."""
        if name not in self._files:
            return ""
        os.lseek(self._files[name], 0, os.SEEK_SET)
        parts = []
        while part := os.read(self._files[name], 65536):
            parts.append(part)
        return b"".join(parts).decode("ascii")
