"""Listening sockets and unacknowledged data of one host.

1. A netlink socket, and an open file of /proc/net, stay bound to the namespace in which they were opened. So
   the caller need not enter that namespace for each check (setns(2) takes milliseconds).
2. Listening sockets have a table of their own, so sock_diag(7) returns them at once. For all other sockets
   the kernel walks a hash table of the whole machine, which takes 10 ms and more; /proc/net/tcp always does.
   So /proc/net/sockstat, which has the number of TCP sockets, is read first.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from typing import Final

from bothends.socket_table.sock_diag import open_socket, tcp_send_queues

# linux/tcp_states.h
_FIN_WAIT_1, _TIME_WAIT, _CLOSED, _LAST_ACK, _LISTEN, _CLOSING = 4, 6, 7, 9, 10, 11
_CLOSING_STATES: Final = frozenset({_FIN_WAIT_1, _LAST_ACK, _CLOSING})
_ACTIVE_STATES: Final = (1 << 13) - 2 & ~(1 << _LISTEN | 1 << _TIME_WAIT | 1 << _CLOSED)
_UDP_BOUND: Final = "07"  # TCP_CLOSE, which for UDP means that it is not connected
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class SocketActivity:
    """The socket tables of the network namespace in which it is created. Raises OSError."""

    def __init__(self) -> None:
        self._diag = open_socket(timeout=1)
        self._files: dict[str, int] = {}
        for name in ("udp", "udp6", "sockstat", "sockstat6"):
            with contextlib.suppress(OSError):  # a kernel without IPv6
                path = f"/proc/thread-self/net/{name}"
                self._files[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def has_listener(self) -> bool:
        """Return whether a TCP socket is listening, or a UDP socket is bound and not connected."""
        return bool(self._tcp_sockets(1 << _LISTEN)) or any(
            line.split()[3] == _UDP_BOUND
            for name in ("udp", "udp6")
            for line in self._read(name).splitlines()[1:]
        )

    def has_unacknowledged(self) -> bool:
        """Return whether a TCP socket has sent data, or a FIN, that its peer has not acknowledged."""
        used = sum(
            int(number)
            for name in ("sockstat", "sockstat6")
            for number in re.findall(r"^TCP6?: inuse (\d+)", self._read(name), re.MULTILINE)
        )
        if used <= len(self._tcp_sockets(1 << _LISTEN)):
            return False
        return any(
            state in _CLOSING_STATES or unacknowledged
            for state, unacknowledged in self._tcp_sockets(_ACTIVE_STATES)
        )

    def _tcp_sockets(self, states: int) -> list[tuple[int, int]]:
        """Return state and unacknowledged bytes of each TCP socket in one of these states (a bit mask)."""
        found: list[tuple[int, int]] = []
        for family in _FAMILIES:
            with contextlib.suppress(OSError):  # a kernel without sock_diag: there is nothing to wait for
                found += tcp_send_queues(self._diag, family, states)
        return found

    def _read(self, name: str) -> str:
        """Return the current content of a file; empty if the kernel lacks it."""
        if name not in self._files:
            return ""
        os.lseek(self._files[name], 0, os.SEEK_SET)
        parts = []
        while part := os.read(self._files[name], 65536):
            parts.append(part)
        return b"".join(parts).decode("ascii")
