"""Open listeners and connections: the only place where endpoints meet system calls.

`open_listeners` listens, `open_connection` connects. Both take an `Endpoint` and return blocking sockets that
child programs do not inherit.

How this package works:

1. Each file does one thing: `listening`, `connecting`, `unix` (names and files of UNIX sockets), `inherited`
   (descriptors opened by another program), `systemd`, `stdio`, `takeover`, `datagrams`, `resolve` (from host
   to addresses), `options`, `host_addresses` (the addresses of this machine), `free_port`, `socket_errors`
   (a message for every errno that a user can meet).
2. An `OSError` is translated where the call is made and stays reachable as `__cause__`. Users may see
   `SystemCallFailed`, `Unavailable` (the kernel lacks a family), `ResolveError`, `TimeoutExpired` and
   `EndpointError`.
3. Nothing here depends on a service or an engine.

Rank 1: imports `endpoints` and `errors`.
"""

from bothends.sockets.connecting import open_connection
from bothends.sockets.datagrams import (
    DATAGRAM_SIZE,
    Ancillary,
    enable_pktinfo,
    receive_datagram,
    send_datagram,
)
from bothends.sockets.host_addresses import local_addresses, port_note
from bothends.sockets.listener import Listener
from bothends.sockets.listening import open_listeners
from bothends.sockets.options import prepare_accepted
from bothends.sockets.socket_errors import ResolveError

__all__ = [
    "DATAGRAM_SIZE",
    "Ancillary",
    "Listener",
    "ResolveError",
    "enable_pktinfo",
    "local_addresses",
    "open_connection",
    "open_listeners",
    "port_note",
    "prepare_accepted",
    "receive_datagram",
    "send_datagram",
]
