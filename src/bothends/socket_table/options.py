"""The options of another process's socket that differ from a fresh one's.

1. No table tells of options. But a process that may trace another may have a copy of its descriptor
   (pidfd_getfd(2), Linux 5.6), and getsockopt(2) on the copy reads the socket itself.
2. A copy keeps the socket open. It is held for a few microseconds, in which a close() of the other process
   would wait to take effect. Nothing is set, nothing is received, and SO_ERROR, which reading clears, is
   left alone.
3. "Differs" is found by comparing with a socket of the same kind that was just made, so it needs no table
   of defaults, which are the system's to choose (sysctl). In another network namespace they may differ.
4. Left out: what the kernel tunes by itself (buffers, unless SO_BUF_LOCK says that someone set them; the
   segment size; quick acknowledgements).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final, TypeVar

from bothends.escaping import escape
from bothends.socket_table.entry import (
    FAMILIES,
    OTHER_STATES,
    PROTOCOLS,
    TCP_STATES,
    TYPES,
    Address,
    Holder,
    SocketRow,
    unix_name,
)
from bothends.sockets.options import SETTINGS

_PIDFD_GETFD: Final = 438  # the same on every architecture that has it
_SO_BUF_LOCK: Final = 72  # asm-generic/socket.h, Linux 5.14
_LOCKED: Final = {"sndbuf": 1, "rcvbuf": 2}  # SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK: linux/socket.h
_LONGEST: Final = 64  # bytes of an option's value: a congestion control's name has 16

_SOL, _TCP, _IP, _IPV6 = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6
_TUNED: Final = {"maxseg"}

# Those of an endpoint, by their names there, and others that programs set: name -> level, number.
OPTIONS: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    **{
        name: tuple((each.level, each.number) for each in settings)
        for name, settings in SETTINGS.items()
        if name not in _TUNED
    },
    "cork": ((_TCP, socket.TCP_CORK),),
    "fastopen": ((_TCP, socket.TCP_FASTOPEN),),
    "keepalive_idle": ((_TCP, socket.TCP_KEEPIDLE),),
    "keepalive_interval": ((_TCP, socket.TCP_KEEPINTVL),),
    "keepalive_count": ((_TCP, socket.TCP_KEEPCNT),),
    "oobinline": ((_SOL, socket.SO_OOBINLINE),),
    "passcred": ((_SOL, socket.SO_PASSCRED),),
    "priority": ((_SOL, socket.SO_PRIORITY),),
    "rcvlowat": ((_SOL, socket.SO_RCVLOWAT),),
    "rcvtimeo": ((_SOL, socket.SO_RCVTIMEO),),
    "sndtimeo": ((_SOL, socket.SO_SNDTIMEO),),
    "dontroute": ((_SOL, socket.SO_DONTROUTE),),
    "transparent": ((_IP, socket.IP_TRANSPARENT),),
    "recverr": ((_IP, 11), (_IPV6, 25)),  # IP_RECVERR, IPV6_RECVERR: linux/in.h, linux/in6.h
    "mtu_discover": ((_IP, 10), (_IPV6, 23)),  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER
}

_TIMES: Final = {"rcvtimeo", "sndtimeo"}
_WORDS: Final = {"congestion", "interface"}
T = TypeVar("T")
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Reader:
    """Reads the sockets of processes, and remembers what a fresh one of each kind is like."""

    def __init__(self) -> None:
        self._fresh: dict[tuple[int, int, int], dict[str, bytes] | None] = {}

    def options(self, holder: Holder) -> dict[str, str] | None:
        """What differs, by name, for a socket that a process holds; None where we may not know."""
        return _with_copy(holder, self._differences)

    def row(self, holder: Holder, inode: int) -> SocketRow | None:
        """A socket that is in no table, as an unbound one is; None where we may not know."""
        return _with_copy(holder, lambda sock: _described(sock, inode))

    def _differences(self, sock: socket.socket) -> dict[str, str] | None:
        kind = (sock.family, sock.type, sock.proto)
        if kind not in self._fresh:
            try:
                with socket.socket(*kind) as fresh:
                    self._fresh[kind] = _values(fresh)
            except OSError:  # raw and packet sockets are not everybody's to make
                self._fresh[kind] = None
        usual = self._fresh[kind]
        if usual is None:
            return None
        found = {
            name: _shown(name, value) for name, value in _values(sock).items() if value != usual.get(name)
        }
        if fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK:
            found["nonblock"] = "1"
        return found


def _with_copy(holder: Holder, look: Callable[[socket.socket], T | None]) -> T | None:
    """Let `look` see a copy of the socket; None where the system gives none."""
    try:
        process = os.pidfd_open(holder.pid)
    except OSError:
        return None
    try:
        number = _libc.syscall(_PIDFD_GETFD, process, holder.fd, 0)
    finally:
        os.close(process)
    if number < 0:
        return None
    try:
        copy = socket.socket(fileno=number)
    except OSError:  # by now the descriptor is some other file
        os.close(number)
        return None
    with copy:
        return look(copy)


def _values(sock: socket.socket) -> dict[str, bytes]:
    """The options that this socket has, as the system gives them."""
    found = {}
    for name, places in OPTIONS.items():
        for level, number in places:
            with contextlib.suppress(OSError):  # not one of this kind of socket
                found[name] = sock.getsockopt(level, number, _LONGEST)
                break
    locked = 0
    with contextlib.suppress(OSError):
        locked = sock.getsockopt(_SOL, _SO_BUF_LOCK)
    for name, bit in _LOCKED.items():
        if not locked & bit:
            found.pop(name, None)
    return found


def _shown(name: str, value: bytes) -> str:
    if name in _WORDS:
        return escape(value.partition(b"\0")[0])
    if name == "linger" and len(value) == 8:
        on, seconds = struct.unpack("ii", value)
        return str(seconds) if on else "off"
    if name in _TIMES and len(value) == 16:
        seconds, micro = struct.unpack("qq", value)
        return f"{seconds + micro / 1e6:g}"
    return str(int.from_bytes(value, sys.byteorder, signed=True))


def _described(sock: socket.socket, inode: int) -> SocketRow:
    family = FAMILIES.get(sock.family, str(int(sock.family)))
    protocol = PROTOCOLS.get(sock.proto, "") if family in ("inet", "inet6") else ""
    states = TCP_STATES if protocol == "tcp" else OTHER_STATES
    local, peer = _name(sock, sock.getsockname), _name(sock, sock.getpeername)
    return SocketRow(
        family=family,
        type=TYPES.get(sock.type, str(int(sock.type))),
        protocol=protocol,
        state=states[7] if peer is None else states[1],
        local=local or Address(),
        peer=peer or Address(),
        inode=inode,
    )


def _name(sock: socket.socket, ask: Callable[[], object]) -> Address | None:
    """What getsockname(2) or getpeername(2) says; None where it refuses. Its form depends on the family."""
    try:
        name = ask()
    except OSError:
        return None
    match name:
        case (str() as host, int() as port, _, int() as interface) if sock.family == socket.AF_INET6:
            return Address(host.partition("%")[0], port, interface)
        case (str() as host, int() as port) if sock.family == socket.AF_INET:
            return Address(host, port)
        case (int() as number, int() as port) if sock.family == socket.AF_VSOCK:
            return Address(str(number), port)
        case str() | bytes():
            return Address(unix_name(os.fsencode(name)))
        case _:
            return Address()
