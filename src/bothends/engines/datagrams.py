"""Answer datagrams: what every engine does when a datagram socket is readable.

A datagram socket has no peer. Each datagram carries its sender's address, and one socket answers all senders,
so there is no connection to accept or close. And any datagram may be lost. So an answer that cannot be sent
at once is dropped and reported, not queued: a queue would only hide a loss that the sender must expect
anyway.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import Any, Final

from bothends.endpoints import Address
from bothends.engines.base import EngineContext, Limits
from bothends.engines.client_limits import AccessControl
from bothends.errors import errno_text
from bothends.events import DatagramDropped, Received, Rejection, RejectReason, Sent, ServiceFailed
from bothends.services.amplification_guard import AmplificationGuard
from bothends.services.base import Peer
from bothends.services.loop_guard import LoopGuard
from bothends.sockets import DATAGRAM_SIZE, Listener, enable_pktinfo, receive_datagram, send_datagram

# Datagrams read from one socket before the loop handles other descriptors.
DATAGRAM_BATCH: Final = 64

# Bytes. The sender's buffer alone limits a UNIX datagram (net.core.wmem_default, 212,992 bytes). Allocating a
# buffer of this size for every UDP datagram would take longer than answering it.
MAX_UNIX_DATAGRAM: Final = 256 * 1024


def max_datagram_size(sock: socket.socket, limits: Limits) -> int:
    """Return the size limit for datagrams of this socket, in bytes."""
    max_size = MAX_UNIX_DATAGRAM if sock.family == socket.AF_UNIX else DATAGRAM_SIZE
    return min(max_size, limits.message or max_size)


def sender_check(context: EngineContext) -> Callable[[Address], Rejection | None] | None:
    """Return what tells why a sender gets no answer now (None: it gets one), or None if each gets one."""
    access_control, rate = AccessControl(context.limits), context.service.answers_per_second
    check_access = access_control.rejection if access_control.is_needed else None
    if rate is None:
        return check_access
    check_rate = AmplificationGuard(rate).check
    if check_access is None:
        return check_rate
    return lambda address: check_access(address) or check_rate(address)


class DatagramServer:
    """Answers the datagrams of one socket, which it makes non-blocking."""

    def __init__(self, context: EngineContext, listener: Listener) -> None:
        self._listener = listener
        self.socket = listener.socket
        self.socket.setblocking(False)
        self._context = context
        self._observe = context.observe
        self._message_observer = context.message_observer
        self._check_sender = sender_check(context)
        self._max_size = max_datagram_size(self.socket, context.limits)
        self._wildcard = enable_pktinfo(self.socket)
        self._cached_peer = functools.lru_cache(maxsize=4096)(self._make_peer)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._listener.close()

    def on_ready(self, _ready: int) -> None:
        """Answer waiting datagrams. The callback of an event loop; the argument is the event mask."""
        self.serve()

    def serve(self) -> int:
        """Answer the waiting datagrams, at most DATAGRAM_BATCH. Returns the number of datagrams read."""
        for count in range(DATAGRAM_BATCH):
            try:
                data, truncated, sender, ancillary = receive_datagram(
                    self.socket, self._max_size, wildcard=self._wildcard
                )
            except BlockingIOError:
                return count
            except OSError:
                # An ICMP error about an earlier answer, which the kernel reports in this call (udp(7)).
                continue
            peer, loop_guard = self._cached_peer(sender)
            if self._message_observer is not None:
                self._message_observer(Received(0, peer.address, data))
            if truncated:
                self._drop(peer, f"a datagram of more than {self._max_size} bytes", RejectReason.SIZE)
            else:
                self._answer(data, peer, loop_guard, sender, ancillary)
        return DATAGRAM_BATCH

    def _answer(self, data: bytes, peer: Peer, loop_guard: LoopGuard, sender: Any, ancillary: Any) -> None:
        rejection = loop_guard.check(data)
        if rejection is None and self._check_sender is not None:
            rejection = self._check_sender(peer.address)
        if rejection is not None:
            self._drop(peer, *rejection)
            return
        try:
            answer = self._context.service.answer(data, peer)
        except Exception as error:
            if self._observe is not None:
                self._observe(ServiceFailed(0, peer.address, error))
            return
        if answer is None:
            return
        if not sender:
            self._drop(
                peer, "the sender has no address (it did not bind one)", RejectReason.NO_SOURCE_ADDRESS
            )
            return
        try:
            send_datagram(self.socket, answer, sender, ancillary)
        except OSError as error:
            self._drop(
                peer, f"sending {len(answer)} bytes: {errno_text(error.errno or 0)}", RejectReason.SEND_FAILED
            )
        else:
            loop_guard.sent(answer)
            if self._message_observer is not None:
                self._message_observer(Sent(0, peer.address, answer))

    def _make_peer(self, sender: Any) -> tuple[Peer, LoopGuard]:
        local = Address.from_sockaddr(self.socket.family, self.socket.getsockname())
        peer = Peer(Address.from_sockaddr(self.socket.family, sender), local, message_oriented=True)
        return peer, LoopGuard()

    def _drop(self, peer: Peer, reason: str, why: RejectReason) -> None:
        if self._observe is not None:
            self._observe(DatagramDropped(peer.address, reason, why))
