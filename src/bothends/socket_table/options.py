"""The socket options of other processes that differ from the defaults.

1. No kernel table lists socket options. But a process that may trace another one can duplicate its descriptor
   (pidfd_getfd(2), Linux 5.6), and getsockopt(2) on the duplicate reads the same socket.
2. A duplicate keeps the socket open. It is held for a few microseconds, during which a close() by the other
   process does not take effect. Nothing is set or received, and SO_ERROR is not read, because reading clears
   it.
3. The defaults come from a new socket of the same kind, so no table of defaults is needed; they depend on
   sysctls. In another network namespace they may differ.
4. Options that the kernel tunes itself are left out: buffer sizes (unless SO_BUF_LOCK reports that they were
   set), the segment size, quick acknowledgements.
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
    NON_TCP_STATES,
    PROTOCOLS,
    TCP_STATES,
    TYPES,
    EntryAddress,
    SocketEntry,
    SocketOwner,
    unix_name,
)
from bothends.sockets.options import SOCKET_OPTIONS

_PIDFD_GETFD: Final = 438  # the same on every architecture that has it
_SO_BUF_LOCK: Final = 72  # asm-generic/socket.h, Linux 5.14
_BUF_LOCK_BITS: Final = {"sndbuf": 1, "rcvbuf": 2}  # SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK: linux/socket.h
_MAX_OPTION_SIZE: Final = 64  # bytes of an option's value: the name of a congestion control takes 16

_SOL, _TCP, _IP, _IPV6 = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6
_AUTOTUNED: Final = {"maxseg"}

# The endpoint options by their names, and others that programs set: name -> (level, option), ...
OPTIONS: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    **{
        name: tuple((each.level, each.optname) for each in settings)
        for name, settings in SOCKET_OPTIONS.items()
        if name not in _AUTOTUNED
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

_TIMEVAL: Final = struct.Struct("=qq")  # struct timeval
_TIMEVAL_OPTIONS: Final = {"rcvtimeo", "sndtimeo"}
_STRING_OPTIONS: Final = {"congestion", "interface"}
T = TypeVar("T")
_libc: Final = ctypes.CDLL(None, use_errno=True)


class OptionReader:
    """Read the options of other processes' sockets; caches the defaults of each kind of socket."""

    def __init__(self) -> None:
        self._defaults: dict[tuple[int, int, int], dict[str, bytes] | None] = {}

    def options(self, owner: SocketOwner) -> dict[str, str] | None:
        """Return the options that differ from the defaults, by name; None if the socket is not accessible."""
        return _with_duplicate(owner, self._non_default)

    def entry(self, owner: SocketOwner, inode: int) -> SocketEntry | None:
        """Return the entry of a socket that is in no table, such as an unbound one; None if inaccessible."""
        return _with_duplicate(owner, lambda sock: _entry_from_socket(sock, inode))

    def _non_default(self, sock: socket.socket) -> dict[str, str] | None:
        kind = (sock.family, sock.type, sock.proto)
        if kind not in self._defaults:
            try:
                with socket.socket(*kind) as fresh:
                    self._defaults[kind] = _read_options(fresh)
            except OSError:  # raw and packet sockets need CAP_NET_RAW
                self._defaults[kind] = None
        defaults = self._defaults[kind]
        if defaults is None:
            return None
        found = {
            name: _format_value(name, value)
            for name, value in _read_options(sock).items()
            if value != defaults.get(name)
        }
        if fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK:
            found["nonblock"] = "1"
        return found


def read_timeouts(owner: SocketOwner) -> tuple[float, float] | None:
    """Return SO_RCVTIMEO and SO_SNDTIMEO of a socket in seconds, 0 for no limit; None if inaccessible."""

    def read(sock: socket.socket) -> tuple[float, float]:
        values = [sock.getsockopt(_SOL, option, 16) for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)]
        receive, send = (seconds + micro / 1e6 for seconds, micro in map(_TIMEVAL.unpack, values))
        return receive, send

    try:
        return _with_duplicate(owner, read)
    except (OSError, struct.error):
        return None


def _with_duplicate(owner: SocketOwner, callback: Callable[[socket.socket], T | None]) -> T | None:
    """Call `callback` with a duplicate of the socket. Returns None if the kernel refuses to duplicate it."""
    try:
        process = os.pidfd_open(owner.pid)
    except OSError:
        return None
    try:
        number = _libc.syscall(_PIDFD_GETFD, process, owner.fd, 0)
    finally:
        os.close(process)
    if number < 0:
        return None
    try:
        duplicate = socket.socket(fileno=number)
    except OSError:  # the descriptor is another kind of file by now
        os.close(number)
        return None
    with duplicate:
        return callback(duplicate)


def _read_options(sock: socket.socket) -> dict[str, bytes]:
    """Return the raw values of all options that this kind of socket supports."""
    found = {}
    for name, candidates in OPTIONS.items():
        for level, number in candidates:
            with contextlib.suppress(OSError):  # not supported by this kind of socket
                found[name] = sock.getsockopt(level, number, _MAX_OPTION_SIZE)
                break
    locked = 0
    with contextlib.suppress(OSError):
        locked = sock.getsockopt(_SOL, _SO_BUF_LOCK)
    for name, bit in _BUF_LOCK_BITS.items():
        if not locked & bit:
            found.pop(name, None)
    return found


def _format_value(name: str, value: bytes) -> str:
    if name in _STRING_OPTIONS:
        return escape(value.partition(b"\0")[0])
    if name == "linger" and len(value) == 8:
        on, seconds = struct.unpack("ii", value)
        return str(seconds) if on else "off"
    if name in _TIMEVAL_OPTIONS and len(value) == 16:
        seconds, micro = _TIMEVAL.unpack(value)
        return f"{seconds + micro / 1e6:g}"
    return str(int.from_bytes(value, sys.byteorder, signed=True))


def _entry_from_socket(sock: socket.socket, inode: int) -> SocketEntry:
    family = FAMILIES.get(sock.family, str(int(sock.family)))
    protocol = PROTOCOLS.get(sock.proto, "") if family in ("inet", "inet6") else ""
    states = TCP_STATES if protocol == "tcp" else NON_TCP_STATES
    local, peer = _socket_name(sock, sock.getsockname), _socket_name(sock, sock.getpeername)
    return SocketEntry(
        family=family,
        type=TYPES.get(sock.type, str(int(sock.type))),
        protocol=protocol,
        state=states[7] if peer is None else states[1],
        local=local or EntryAddress(),
        peer=peer or EntryAddress(),
        inode=inode,
    )


def _socket_name(sock: socket.socket, get_name: Callable[[], object]) -> EntryAddress | None:
    """Convert the result of getsockname(2) or getpeername(2), whose form depends on the family."""
    try:
        name = get_name()
    except OSError:
        return None
    match name:
        case (str() as host, int() as port, _, int() as interface) if sock.family == socket.AF_INET6:
            return EntryAddress(host.partition("%")[0], port, interface)
        case (str() as host, int() as port) if sock.family == socket.AF_INET:
            return EntryAddress(host, port)
        case (int() as number, int() as port) if sock.family == socket.AF_VSOCK:
            return EntryAddress(str(number), port)
        case str() | bytes():
            return EntryAddress(unix_name(os.fsencode(name)))
        case _:
            return EntryAddress()
