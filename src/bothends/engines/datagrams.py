"""Answering datagrams: what every engine does when a datagram socket has something.

Two facts shape it. A datagram socket has no peer: each datagram carries its sender, and one socket
answers all of them, so there is nothing to accept and nothing to close. And a datagram may be
lost anywhere: where an answer can't be sent at once it is dropped, and that is told, rather than
kept, which would only hide the loss from a sender that has to expect it anyway.
"""

from __future__ import annotations

import errno
import functools
import socket
from typing import Any, Final

from bothends.endpoints import Address
from bothends.engines.access_control import AccessControl
from bothends.engines.base import EngineContext, Limits
from bothends.errors import errno_text
from bothends.events import DatagramDropped, Received, RejectReason, Sent, ServiceFailed
from bothends.services.amplification_guard import AmplificationGuard
from bothends.services.base import Peer
from bothends.sockets import DATAGRAM_SIZE, Listener, enable_pktinfo, receive_datagram, send_datagram

# Datagrams taken from one socket before the loop looks at the others.
DATAGRAM_BATCH: Final = 64

# UNIX datagrams are bounded by the sender's buffer only (net.core.wmem_default, 212,992 bytes). A
# buffer of this size for every UDP datagram would cost more than answering it.
MAX_UNIX_DATAGRAM: Final = 256 * 1024

_WOULD_BLOCK: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})


def max_datagram_size(sock: socket.socket, limits: Limits) -> int:
    """The largest datagram, in bytes, that is taken from this socket."""
    largest = MAX_UNIX_DATAGRAM if sock.family == socket.AF_UNIX else DATAGRAM_SIZE
    return min(largest, limits.message or largest)


class DatagramServer:
    """Answers what arrives at one datagram socket, which it makes non-blocking."""

    def __init__(self, context: EngineContext, listener: Listener) -> None:
        self._listener = listener
        self.socket = listener.socket
        self.socket.setblocking(False)
        self._job = context
        self._observe = context.observe
        self._traffic_observer = context.traffic_observer
        self._access_control = AccessControl(context.limits)
        self._guard = (
            AmplificationGuard(rate) if (rate := context.service.answers_per_second) is not None else None
        )
        self._max_size = max_datagram_size(self.socket, context.limits)
        self._wildcard = enable_pktinfo(self.socket)
        self._cached_peer = functools.lru_cache(maxsize=4096)(self._make_peer)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.socket.fileno()

    def close(self) -> None:
        """Answer no more."""
        self._listener.close()

    def on_ready(self, _ready: int) -> None:
        """For a loop that tells what is ready."""
        self.serve()

    def serve(self) -> int:
        """Answer what waits, BATCH at most; how many there were."""
        for count in range(DATAGRAM_BATCH):
            try:
                data, truncated, sender, ancillary = receive_datagram(
                    self.socket, self._max_size, wildcard=self._wildcard
                )
            except OSError as error:
                if error.errno in _WOULD_BLOCK:
                    return count
                # An ICMP error of an answer sent earlier, reported now (udp(7)): nobody's loss here.
                continue
            peer = self._cached_peer(sender)
            if self._traffic_observer is not None:
                self._traffic_observer(Received(0, peer.address, data))
            if truncated:
                self._drop(peer, f"a datagram of more than {self._max_size} bytes", RejectReason.SIZE)
            else:
                self._answer(data, peer, sender, ancillary)
        return DATAGRAM_BATCH

    def _answer(self, data: bytes, peer: Peer, sender: Any, ancillary: Any) -> None:
        refusal = self._access_control.rejection(peer.address)
        if refusal is None and self._guard is not None:
            refusal = self._guard.check(peer.address)
        if refusal is not None:
            self._drop(peer, *refusal)
            return
        try:
            answer = self._job.service.answer(data, peer)
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
            if self._traffic_observer is not None:
                self._traffic_observer(Sent(0, peer.address, answer))

    def _make_peer(self, sender: Any) -> Peer:
        local = Address.from_sockaddr(self.socket.family, self.socket.getsockname())
        return Peer(Address.from_sockaddr(self.socket.family, sender), local, message_oriented=True)

    def _drop(self, peer: Peer, reason: str, why: RejectReason) -> None:
        if self._observe is not None:
            self._observe(DatagramDropped(peer.address, reason, why))
