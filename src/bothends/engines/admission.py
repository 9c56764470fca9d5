"""Admission control: accept, defer or reject each new connection.

What the kernel does, and what follows:

1. The kernel completes the handshake, not accept(): a connection waits in the accept queue when the client is
   already connected and may have sent data. So leaving it in the queue (`defer`) makes the client wait, and
   accepting and closing it (`refuse`) informs the client at once.
2. accept() also returns errors of the connection, not of the listener: ECONNABORTED if the client reset it in
   the queue, and on Linux any pending network error (accept(2), "Error handling"). Such an error ends that
   connection only, and the loop continues.
3. At the descriptor limit accept() fails with EMFILE and the connection stays in the queue, so the listener
   stays readable: a loop that retries at once uses 100 % of a CPU and accepts nothing. So listeners are not
   watched until this engine closes a descriptor, or for ACCEPT_PAUSE seconds, because another thread may have
   closed one.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Final

from bothends.endpoints import Address
from bothends.engines.base import EngineContext
from bothends.engines.client_limits import AccessControl
from bothends.errors import OUT_OF_RESOURCES
from bothends.events import AcceptPaused, AcceptResumed, ConnectionRejected, Rejection, RejectReason
from bothends.services.base import Peer
from bothends.sockets import Listener, prepare_accepted

# Connections accepted from one listener before the loop handles other descriptors: enough to empty a burst in
# a few iterations, few enough that a flood of connections does not delay the open ones.
ACCEPT_BATCH: Final = 64

ACCEPT_PAUSE: Final = 0.1  # seconds

_UNSPECIFIED: Final = frozenset({"", "0.0.0.0", "::"})  # addresses of listeners on every interface


class AcceptedSocket(socket.socket):
    """A socket whose `family` and `type` are integers, because to convert one to an enum takes 0.7 us."""

    __slots__ = ()

    family = socket.SocketType.family  # type: ignore[assignment]
    type = socket.SocketType.type  # type: ignore[assignment]


class _AcceptQueue:
    """The accept queue of one listener, with all that its connections have in common.

    It is found out once, and not for each connection: the family and type, which `socket` would convert
    to enums each time, and the local address, which takes a system call.
    """

    def __init__(self, listener: Listener) -> None:
        sock = listener.socket
        self.endpoint = listener.endpoint
        self.family, self._type, self._protocol = int(sock.family), int(sock.type), sock.proto
        self.message_oriented = self._type == socket.SOCK_SEQPACKET
        self._accept = sock._accept  # type: ignore[attr-defined]  # what socket.accept() calls, too
        self._local = None if _local_address_varies(sock) else listener.address

    def accept(self) -> tuple[socket.socket, Address]:
        """Return the next connection and its peer's address. Raises OSError, as accept(2)."""
        descriptor, sockaddr = self._accept()
        connection = AcceptedSocket(self.family, self._type, self._protocol, descriptor)
        return connection, Address.from_sockaddr(self.family, sockaddr)

    def local_address(self, connection: socket.socket) -> Address:
        """Return the address of this end of a connection."""
        return self._local or Address.from_sockaddr(self.family, connection.getsockname())


def _local_address_varies(listener: socket.socket) -> bool:
    """Whether the local address of a connection can differ from that of its listener."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return listener.family != socket.AF_UNIX
    try:
        # With IP_TRANSPARENT it is any address that the network routes here (ip(7)).
        transparent = listener.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT)
    except OSError:
        return True  # unknown to the protocol (MPTCP in some kernels), so each connection is asked
    return bool(transparent) or listener.getsockname()[0] in _UNSPECIFIED


class AdmissionControl:
    """Accepts, defers or rejects new connections. One object for all listeners of a process.

    Args:
        context: the engine's context.
        max_connections: a limit of the engine, in addition to `limits.connections`.
        fd_limit: the lowest descriptor that the engine cannot wait for (select), or None.
        make_room: closes an idle connection at the connection limit, and returns whether there was one.
    """

    def __init__(
        self,
        context: EngineContext,
        *,
        max_connections: int | None = None,
        fd_limit: int | None = None,
        make_room: Callable[[], bool] | None = None,
    ) -> None:
        limits = [limit for limit in (context.limits.connections, max_connections) if limit is not None]
        self._max_connections = min(limits) if limits else None
        self._defer = context.limits.when_full == "defer"
        self._make_room = make_room
        self._observe = context.observe
        access_control = AccessControl(context.limits)
        self._access_control = access_control if access_control.is_needed else None
        self._accept_queues: dict[Listener, _AcceptQueue] = {}
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
        """Return the seconds until the pause ends, or None if there is no pause."""
        if self._paused_until is None:
            return None
        delay = self._paused_until - time.monotonic()
        return delay if delay > 0 else None

    def retry_due(self) -> bool:
        """Whether a pause is over, so that accept() should be tried on every listener."""
        return self._paused_until is not None and not self._exhausted and self.retry_delay() is None

    def accept(self, listener: Listener, *, limited: bool = True) -> Iterator[tuple[socket.socket, Peer]]:
        """Yield the connections waiting at a non-blocking listener, at most ACCEPT_BATCH.

        The caller owns each connection, and calls `release` once it is closed. With `limited` False the
        connection limit is not applied.
        """
        queue = self._accept_queue(listener)
        for _ in range(ACCEPT_BATCH):
            if limited and not self.can_accept():
                return
            try:
                connection, address = queue.accept()
            except BlockingIOError:
                if not self._exhausted:
                    # Linux allocates the descriptor before it checks the queue, so descriptors are available.
                    self._end_pause()
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._start_pause(error.errno)
                    return
                continue  # an error of the connection (fact 2)
            if self._paused_until is not None and not self._exhausted:
                self._end_pause()
            if (rejection := self._rejection(address, limited=limited)) is not None:
                self._reject(connection, address, *rejection)
                continue
            if self._fd_limit is not None and connection.fileno() >= self._fd_limit:
                reason = f"this engine cannot wait for descriptor {connection.fileno()}; its limit is"
                self._reject(connection, address, f"{reason} {self._fd_limit - 1}", RejectReason.DESCRIPTOR)
                continue
            yield connection, self._register(connection, address, queue)

    def admit(self, address: Address) -> bool:
        """Return whether a connection that the engine has accepted may stay; if so, count it as open.

        An engine that calls this defers by itself: it accepts nothing at the connection limit.
        """
        if (rejection := self._rejection(address, limited=not self._defer)) is not None:
            self._emit_rejected(address, *rejection)
            return False
        self.open_count += 1
        if self._access_control is not None:
            self._access_control.add(address)
        return True

    def _accept_queue(self, listener: Listener) -> _AcceptQueue:
        queue = self._accept_queues.get(listener)
        if queue is None:
            queue = self._accept_queues[listener] = _AcceptQueue(listener)
        return queue

    def _register(self, connection: socket.socket, address: Address, queue: _AcceptQueue) -> Peer:
        """Count a connection as open, apply the listener's options to it, and return its peer."""
        prepare_accepted(connection, queue.endpoint)
        self.accepted_count += 1
        self.open_count += 1
        if self._access_control is not None:
            self._access_control.add(address)
        local = queue.local_address(connection)
        return Peer(address, local, queue.message_oriented, self.accepted_count, self._max_message_size)

    def register_inherited(self, listener: Listener) -> tuple[socket.socket, Peer]:
        """Count the inherited connection of a listener whose role is "connection" as open."""
        connection = listener.socket.dup()
        try:
            address = Address.from_sockaddr(connection.family, connection.getpeername())
        except OSError:  # ENOTCONN: the peer has reset it, which the first read reports
            address = Address.from_sockaddr(
                connection.family, "" if connection.family == socket.AF_UNIX else ("", 0)
            )
        return connection, self._register(connection, address, self._accept_queue(listener))

    def release(self, peer: Peer) -> None:
        """Stop counting a connection. Call after closing it, with the `peer` that `accept` yielded."""
        self.open_count -= 1
        if self._access_control is not None:
            self._access_control.remove(peer.address)
        self._paused_until = None if self._paused_until is None else 0.0

    def pause(self, error_number: int) -> None:
        """Pause accepting because a thread or process could not be started for an accepted connection.

        Unlike a pause for lack of descriptors, it is over only when the engine calls `resume`.
        """
        self._exhausted = True
        self._start_pause(error_number)

    def resume(self) -> None:
        """End a pause, because a thread or process could be started. For engines that call `pause`."""
        self._exhausted = False
        self._end_pause()

    def _rejection(self, address: Address, *, limited: bool = True) -> Rejection | None:
        access_control = self._access_control
        if access_control is not None and (rejection := access_control.rejection(address)) is not None:
            return rejection
        if limited and self._is_full() and not (self._make_room and self._make_room()):
            reason = f"{self._max_connections} connections are open, the limit"
            return Rejection(reason, RejectReason.FULL)
        return None

    def _is_full(self) -> bool:
        return self._max_connections is not None and self.open_count >= self._max_connections

    def _reject(self, connection: socket.socket, address: Address, reason: str, why: RejectReason) -> None:
        connection.close()
        self._emit_rejected(address, reason, why)

    def _emit_rejected(self, address: Address, reason: str, why: RejectReason) -> None:
        if self._observe is not None:
            self._observe(ConnectionRejected(address, reason, why))

    def _start_pause(self, error_number: int) -> None:
        if self._paused_until is None and self._observe is not None:
            self._observe(AcceptPaused(error_number, self.open_count))
        self._paused_until = time.monotonic() + ACCEPT_PAUSE

    def _end_pause(self) -> None:
        if self._paused_until is not None:
            self._paused_until = None
            if self._observe is not None:
                self._observe(AcceptResumed())
