"""Endpoint options as socket options: one table, and when each option is set.

Options are set before bind and connect, because some only take effect then (SO_REUSEADDR, SO_REUSEPORT, and
buffer sizes, which determine the TCP window scale, RFC 7323 section 2).

On Linux an accepted TCP or MPTCP socket is a copy of its listener with all of these options (sk_clone_lock),
so they are set once on the listener and cost nothing per connection. An accepted UNIX socket is new, and its
buffer sizes are set again.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bothends.endpoints import Endpoint
from bothends.sockets.socket_errors import option_error

_libc: Final = ctypes.CDLL(None, use_errno=True)

# Length of the accept queue. Linux limits it to net.core.somaxconn, 4096 since 5.4, so this is the maximum.
# When the queue is full SYNs are dropped, and the client's retransmission delays the connection by a second.
DEFAULT_BACKLOG: Final = 4096


@dataclass(frozen=True, slots=True)
class SocketOption:
    """One setsockopt(2) call, for sockets of `families`; `listener_only` options are for listeners only."""

    level: int
    optname: int
    encode: Callable[[int], int | bytes] | None = None  # None: the value is text
    families: frozenset[int] = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})
    listener_only: bool = False


def _encode_string(text: str) -> bytes:
    return text.encode() + b"\0"


def _encode_linger(seconds: int) -> bytes:
    return struct.pack("ii", 1, seconds)


def _encode_uint32(number: int) -> bytes:
    return struct.pack("=I", number)


_TCP, _IP, _IPV6 = socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6
_V6 = frozenset({int(socket.AF_INET6)})

# An IPv6 socket may carry IPv4 too, so packet options are set for both families; the IP_* calls work on it.
# `family`, `backlog` and `mode` are not socket options: resolve.py, listening.py and unix.py apply them.
# `trust` and `header` concern the PROXY header: `bothends.layers` and `bothends.client` apply them.
SOCKET_OPTIONS: Final[Mapping[str, tuple[SocketOption, ...]]] = {
    "v6only": (SocketOption(_IPV6, socket.IPV6_V6ONLY, int, _V6, listener_only=True),),
    "reuseaddr": (SocketOption(socket.SOL_SOCKET, socket.SO_REUSEADDR, int),),
    "reuseport": (SocketOption(socket.SOL_SOCKET, socket.SO_REUSEPORT, int),),
    "nodelay": (SocketOption(_TCP, socket.TCP_NODELAY, int),),
    "keepalive": (SocketOption(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int),),
    "linger": (SocketOption(socket.SOL_SOCKET, socket.SO_LINGER, _encode_linger),),
    "user_timeout": (SocketOption(_TCP, socket.TCP_USER_TIMEOUT, int),),
    "maxseg": (SocketOption(_TCP, socket.TCP_MAXSEG, int),),
    "congestion": (SocketOption(_TCP, socket.TCP_CONGESTION),),
    "defer_accept": (SocketOption(_TCP, socket.TCP_DEFER_ACCEPT, int, listener_only=True),),
    "ttl": (SocketOption(_IP, socket.IP_TTL, int), SocketOption(_IPV6, socket.IPV6_UNICAST_HOPS, int, _V6)),
    "tos": (SocketOption(_IP, socket.IP_TOS, int), SocketOption(_IPV6, socket.IPV6_TCLASS, int, _V6)),
    "mark": (SocketOption(socket.SOL_SOCKET, socket.SO_MARK, _encode_uint32),),
    "interface": (SocketOption(socket.SOL_SOCKET, socket.SO_BINDTODEVICE),),
    "broadcast": (SocketOption(socket.SOL_SOCKET, socket.SO_BROADCAST, int),),
    "rcvbuf": (SocketOption(socket.SOL_SOCKET, socket.SO_RCVBUF, int),),
    "sndbuf": (SocketOption(socket.SOL_SOCKET, socket.SO_SNDBUF, int),),
}

# Nagle's algorithm (RFC 896, RFC 9293 section 3.7.4) holds a small segment back while an earlier one is
# unacknowledged, and delayed acknowledgement (RFC 1122 section 4.2.3.2) withholds that ACK for up to 40 ms.
# Together they stall request-response programs that write twice. So Nagle is off by default. The price is
# more packets for programs that make many small writes; these can set nodelay=0.
_NODELAY_BY_DEFAULT: Final = frozenset({"tcp", "tls", "mptcp"})

# Connections in TIME_WAIT block a TCP port for a minute after a restart, unless SO_REUSEADDR is set; it never
# lets two TCP listeners share a port. For UDP it would, and one of the sockets would get every datagram, so
# it is off there.
_REUSEADDR_BY_DEFAULT: Final = frozenset({"tcp", "tls", "mptcp", "sctp"})


def apply_options(sock: socket.socket, endpoint: Endpoint, *, listening: bool) -> None:
    """Set the options of an endpoint, and the defaults, on a socket that is neither bound nor connected.

    Raises SystemCallFailed, which names the option.
    """
    values = dict(endpoint.options)
    if endpoint.scheme in _NODELAY_BY_DEFAULT:
        values.setdefault("nodelay", True)
    if listening and endpoint.scheme in _REUSEADDR_BY_DEFAULT:
        values.setdefault("reuseaddr", True)
    for name, value in values.items():
        for setting in SOCKET_OPTIONS.get(name, ()):
            if sock.family in setting.families and (listening or not setting.listener_only):
                _set(sock, endpoint, name, setting, value)


def prepare_accepted(sock: socket.socket, endpoint: Endpoint) -> None:
    """Set the options that an accepted connection does not inherit from its listener; for TCP there are none.

    Raises SystemCallFailed.
    """
    if endpoint.options and endpoint.is_unix:
        for name, value in endpoint.options:
            for setting in SOCKET_OPTIONS.get(name, ()):
                _set(sock, endpoint, name, setting, value)


def reset_on_close(sock: socket.socket) -> None:
    """Make the next close() discard unsent data and send RST: a linger time of zero (socket(7), SO_LINGER).

    This is the ABORT call of RFC 9293 section 3.10.5. Without it the kernel holds the data that a peer does
    not read for minutes. A UNIX socket has no RST and closes as usual. A closed socket is left alone.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _encode_linger(0))


def reset_now(sock: socket.socket) -> bool:
    """Send RST at once, although other threads block on the socket; their calls fail. Returns whether it did.

    shutdown() would also wake them, but sends FIN, so that a truncated answer would look whole. connect() to
    AF_UNSPEC dissolves a TCP connection (connect(2)) as ABORT of RFC 9293 does. Fails for other families, and
    with EBUSY on kernels 6.4 to 6.6 while a thread blocks.
    """
    unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
    return bool(_libc.connect(sock.fileno(), unspecified, len(unspecified)) == 0)


def _set(sock: socket.socket, endpoint: Endpoint, name: str, option: SocketOption, value: int | str) -> None:
    encoded = _encode_string(value) if isinstance(value, str) else value
    if option.encode is not None and not isinstance(value, str):
        encoded = option.encode(value)
    try:
        sock.setsockopt(option.level, option.optname, encoded)
    except OSError as error:
        raise option_error(name, endpoint, error) from error
