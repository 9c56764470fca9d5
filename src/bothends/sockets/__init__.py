"""Opening listeners and connections: the only place where endpoints meet system calls.

`open_listeners` welcomes, `open_connection` calls; both take an `Endpoint` and give plain blocking
sockets that are not inherited by child programs.

How this package works:

1. Each file does one thing: `listening`, `connecting`, `unix` (names and files of UNIX sockets), `adopting`
   (descriptors that somebody else opened), `stdio`, `datagrams`, `names` (from host to address), `options`,
   `machine` (what this machine has), `refusals` (every errno that a user can meet, in words).
2. An `OSError` is translated where the call was made and stays the `__cause__`. What a user may see is
   `SystemCallFailed`, `Unavailable` (the kernel hasn't got it), `ResolveError`, `TimeoutExpired`, `EndpointError`.
3. Nothing here knows a service or an engine.

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
