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
from bothends.engines.access_control import Gate
from bothends.engines.base import Job
from bothends.events import Refused, Relieved, Strained, Why
from bothends.services.base import Peer
from bothends.sockets import Listener, prepare_accepted

# Connections taken from one listener before the loop looks at the others: enough to empty a burst
# in a few rounds, few enough that the established ones don't wait for a flood of newcomers.
BATCH: Final = 64

STRAIN_PAUSE: Final = 0.1

_STRAIN: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NONE_WAITING: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})


class Reception:
    """Who comes in, who must wait, and who is turned away. One for all listeners of a process.

    `first_refused` is the lowest descriptor that this engine cannot wait for (select), or None.
    """

    def __init__(self, job: Job, *, most: int | None = None, first_refused: int | None = None) -> None:
        limits = [limit for limit in (job.limits.connections, most) if limit is not None]
        self._most = min(limits) if limits else None
        self._defer = job.limits.when_full == "defer"
        self._observe = job.observe
        self._gate = Gate(job.limits)
        self._longest = job.limits.message
        self._first_refused = first_refused
        self.number = 0
        self._strained_until: float | None = None
        self._starved = False
        self.open = 0

    def welcomes(self) -> bool:
        """Whether listeners should be watched now."""
        if self._strained_until is not None and time.monotonic() < self._strained_until:
            return False
        return not (self._defer and self._is_full())

    def pause(self) -> float | None:
        """Seconds after which `welcomes` may change by itself; None if only `left` can change it."""
        if self._strained_until is None:
            return None
        left = self._strained_until - time.monotonic()
        return left if left > 0 else None

    def tries_again(self) -> bool:
        """Whether accepting has been strained for so long that it is time to see if it still is."""
        return self._strained_until is not None and not self._starved and self.pause() is None

    def accept(self, listener: Listener, *, limited: bool = True) -> Iterator[tuple[socket.socket, Peer]]:
        """Take what waits at a listener (non-blocking), as far as the limits allow, if they count.

        Who takes a connection from here owns it, and calls `left` when it is over.
        """
        for _ in range(BATCH):
            if limited and not self.welcomes():
                return
            try:
                connection, sockaddr = listener.socket.accept()
            except OSError as error:
                if error.errno in _NONE_WAITING:
                    if not self._starved:
                        self._relieve()  # Linux takes the descriptor first, then looks into the queue
                    return
                if error.errno in _STRAIN:
                    self._strain(error.errno)
                    return
                continue  # the connection's own error: fact 2
            if not self._starved:
                self._relieve()
            address = Address.of(connection.family, sockaddr)
            if (refusal := self._gate.refusal(address)) is not None:
                self._turn_away(connection, address, *refusal)
                continue
            if limited and self._is_full():
                reason = f"{self._most} connections are open, the limit"
                self._turn_away(connection, address, reason, Why.FULL)
                continue
            if self._first_refused is not None and connection.fileno() >= self._first_refused:
                reason = f"descriptor {connection.fileno()} is beyond what this engine can wait for"
                self._turn_away(connection, address, f"{reason} ({self._first_refused - 1})", Why.DESCRIPTOR)
                continue
            yield connection, self.admit(connection, address, listener)

    def admit(self, connection: socket.socket, address: Address, listener: Listener) -> Peer:
        """Count a connection in, and say who it is."""
        prepare_accepted(connection, listener.endpoint)
        self.number += 1
        self.open += 1
        self._gate.enter(address)
        local = Address.of(connection.family, connection.getsockname())
        boundaries = connection.type == socket.SOCK_SEQPACKET
        return Peer(address, local, boundaries, self.number, self._longest)

    def adopt(self, listener: Listener) -> tuple[socket.socket, Peer]:
        """Count in the ready-made connection of a listener whose role is "connection"."""
        connection = listener.socket.dup()
        try:
            address = Address.of(connection.family, connection.getpeername())
        except OSError:  # the peer has gone already; the first read will say so
            address = Address.of(connection.family, "" if connection.family == socket.AF_UNIX else ("", 0))
        return connection, self.admit(connection, address, listener)

    def left(self, peer: Peer) -> None:
        """A connection is over and its descriptor given back. `peer` is who `accept` said it was."""
        self.open -= 1
        self._gate.leave(peer.address)
        self._strained_until = None if self._strained_until is None else 0.0

    def strain(self, number: int) -> None:
        """What was accepted could not be served for want of something other than descriptors (a
        thread, a process): pause as for those, until `relieve` says that the next one could."""
        self._starved = True
        self._strain(number)

    def relieve(self) -> None:
        """What was accepted could be served. For engines that call `strain`."""
        self._starved = False
        self._relieve()

    def _is_full(self) -> bool:
        return self._most is not None and self.open >= self._most

    def _turn_away(self, connection: socket.socket, address: Address, reason: str, why: Why) -> None:
        connection.close()
        if self._observe is not None:
            self._observe(Refused(address, reason, why))

    def _strain(self, number: int) -> None:
        if self._strained_until is None and self._observe is not None:
            self._observe(Strained(number, self.open))
        self._strained_until = time.monotonic() + STRAIN_PAUSE

    def _relieve(self) -> None:
        if self._strained_until is not None:
            self._strained_until = None
            if self._observe is not None:
                self._observe(Relieved())
