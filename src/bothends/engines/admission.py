"""Accepting connections, under the connection limit and the descriptor limit.

What the kernel does, and what follows:

1. A connection is made by the kernel, not by accept(): the handshake is over, and the client may
   have sent already, when it waits in the listener's queue. So leaving it there (`defer`) costs
   the client time, and accepting it to close it (`refuse`) tells it at once.
2. accept() returns errors that belong to the connection, not to the listener: ECONNABORTED when
   the client has reset it in the queue, and on Linux any pending network error (accept(2), "Error
   handling"). They end that connection; the loop goes on.
3. At the descriptor limit accept() fails with EMFILE and the connection stays in the queue, so a
   listener that is watched stays readable: a loop that tries again at once spins at 100 % CPU and
   serves nobody. We stop watching until a descriptor of ours is given back, or for STRAIN_PAUSE:
   someone else in the process may have given one back.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from typing import Final

from bothends.endpoints import Address
from bothends.engines.access_control import AccessControl
from bothends.engines.base import EngineContext
from bothends.errors import OUT_OF_RESOURCES
from bothends.events import AcceptPaused, AcceptResumed, ConnectionRejected, RejectReason
from bothends.services.base import Peer
from bothends.sockets import Listener, prepare_accepted

# Connections taken from one listener before the loop looks at the others: enough to empty a burst
# in a few rounds, few enough that the established ones don't wait for a flood of newcomers.
ACCEPT_BATCH: Final = 64

ACCEPT_PAUSE: Final = 0.1

_WOULD_BLOCK: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})


class AdmissionControl:
    """Who comes in, who must wait, and who is turned away. One for all listeners of a process.

    `fd_limit` is the lowest descriptor that this engine cannot wait for (select), or None.
    """

    def __init__(
        self, context: EngineContext, *, max_connections: int | None = None, fd_limit: int | None = None
    ) -> None:
        limits = [limit for limit in (context.limits.connections, max_connections) if limit is not None]
        self._max_connections = min(limits) if limits else None
        self._defer = context.limits.when_full == "defer"
        self._observe = context.observe
        self._access_control = AccessControl(context.limits)
        self._max_message_size = context.limits.message
        self._fd_limit = fd_limit
        self.accepted_count = 0
        self._paused_until: float | None = None
        self._exhausted = False
        self.open_count = 0

    def can_accept(self) -> bool:
        """Whether listeners should be watched now."""
        if self._paused_until is not None and time.monotonic() < self._paused_until:
            return False
        return not (self._defer and self._is_full())

    def retry_delay(self) -> float | None:
        """Seconds after which `can_accept` may change by itself; None if only `left` can change it."""
        if self._paused_until is None:
            return None
        left = self._paused_until - time.monotonic()
        return left if left > 0 else None

    def retry_due(self) -> bool:
        """Whether accepting has been strained for so long that it is time to see if it still is."""
        return self._paused_until is not None and not self._exhausted and self.retry_delay() is None

    def accept(self, listener: Listener, *, limited: bool = True) -> Iterator[tuple[socket.socket, Peer]]:
        """Take what waits at a listener (non-blocking), as far as the limits allow, if they count.

        Who takes a connection from here owns it, and calls `left` when it is over.
        """
        for _ in range(ACCEPT_BATCH):
            if limited and not self.can_accept():
                return
            try:
                connection, sockaddr = listener.socket.accept()
            except OSError as error:
                if error.errno in _WOULD_BLOCK:
                    if not self._exhausted:
                        self._end_pause()  # Linux takes the descriptor first, then looks into the queue
                    return
                if error.errno in OUT_OF_RESOURCES:
                    self._start_pause(error.errno)
                    return
                continue  # the connection's own error: fact 2
            if not self._exhausted:
                self._end_pause()
            address = Address.from_sockaddr(connection.family, sockaddr)
            if (refusal := self._access_control.rejection(address)) is not None:
                self._reject(connection, address, *refusal)
                continue
            if limited and self._is_full():
                reason = f"{self._max_connections} connections are open, the limit"
                self._reject(connection, address, reason, RejectReason.FULL)
                continue
            if self._fd_limit is not None and connection.fileno() >= self._fd_limit:
                reason = f"descriptor {connection.fileno()} is beyond what this engine can wait for"
                self._reject(connection, address, f"{reason} ({self._fd_limit - 1})", RejectReason.DESCRIPTOR)
                continue
            yield connection, self.register(connection, address, listener)

    def register(self, connection: socket.socket, address: Address, listener: Listener) -> Peer:
        """Count a connection in, and say who it is."""
        prepare_accepted(connection, listener.endpoint)
        self.accepted_count += 1
        self.open_count += 1
        self._access_control.add(address)
        local = Address.from_sockaddr(connection.family, connection.getsockname())
        boundaries = connection.type == socket.SOCK_SEQPACKET
        return Peer(address, local, boundaries, self.accepted_count, self._max_message_size)

    def register_inherited(self, listener: Listener) -> tuple[socket.socket, Peer]:
        """Count in the ready-made connection of a listener whose role is "connection"."""
        connection = listener.socket.dup()
        try:
            address = Address.from_sockaddr(connection.family, connection.getpeername())
        except OSError:  # the peer has gone already; the first read will say so
            address = Address.from_sockaddr(
                connection.family, "" if connection.family == socket.AF_UNIX else ("", 0)
            )
        return connection, self.register(connection, address, listener)

    def release(self, peer: Peer) -> None:
        """A connection is over and its descriptor given back. `peer` is who `accept` said it was."""
        self.open_count -= 1
        self._access_control.remove(peer.address)
        self._paused_until = None if self._paused_until is None else 0.0

    def pause(self, error_number: int) -> None:
        """What was accepted could not be served for want of something other than descriptors (a
        thread, a process): pause as for those, until `resume` says that the next one could."""
        self._exhausted = True
        self._start_pause(error_number)

    def resume(self) -> None:
        """What was accepted could be served. For engines that call `pause`."""
        self._exhausted = False
        self._end_pause()

    def _is_full(self) -> bool:
        return self._max_connections is not None and self.open_count >= self._max_connections

    def _reject(self, connection: socket.socket, address: Address, reason: str, why: RejectReason) -> None:
        connection.close()
        if self._observe is not None:
            self._observe(ConnectionRejected(address, reason, why))

    def _start_pause(self, number: int) -> None:
        if self._paused_until is None and self._observe is not None:
            self._observe(AcceptPaused(number, self.open_count))
        self._paused_until = time.monotonic() + ACCEPT_PAUSE

    def _end_pause(self) -> None:
        if self._paused_until is not None:
            self._paused_until = None
            if self._observe is not None:
                self._observe(AcceptResumed())
