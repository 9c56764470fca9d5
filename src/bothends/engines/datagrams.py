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
from bothends.engines.access_control import Gate
from bothends.engines.base import Job, Limits
from bothends.errors import errno_text
from bothends.events import Dropped, Failed, Received, Sent, Why
from bothends.services.amplification_guard import Guard
from bothends.services.base import Peer
from bothends.sockets import DATAGRAM_SIZE, Listener, enable_pktinfo, receive_datagram, send_datagram

# Datagrams taken from one socket before the loop looks at the others.
BATCH: Final = 64

# UNIX datagrams are bounded by the sender's buffer only (net.core.wmem_default, 212,992 bytes). A
# buffer of this size for every UDP datagram would cost more than answering it.
LARGEST_UNIX: Final = 256 * 1024

_NONE_WAITING: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})


def largest_datagram(sock: socket.socket, limits: Limits) -> int:
    """The largest datagram, in bytes, that is taken from this socket."""
    largest = LARGEST_UNIX if sock.family == socket.AF_UNIX else DATAGRAM_SIZE
    return min(largest, limits.message or largest)


class DatagramDesk:
    """Answers what arrives at one datagram socket, which it makes non-blocking."""

    def __init__(self, job: Job, listener: Listener) -> None:
        self._listener = listener
        self.socket = listener.socket
        self.socket.setblocking(False)
        self._job = job
        self._observe = job.observe
        self._witness = job.witness
        self._gate = Gate(job.limits)
        self._guard = Guard(rate) if (rate := job.service.answers_per_second) is not None else None
        self._largest = largest_datagram(self.socket, job.limits)
        self._wildcard = enable_pktinfo(self.socket)
        self._peer = functools.lru_cache(maxsize=4096)(self._new_peer)

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
        for count in range(BATCH):
            try:
                data, truncated, sender, ancillary = receive_datagram(
                    self.socket, self._largest, wildcard=self._wildcard
                )
            except OSError as error:
                if error.errno in _NONE_WAITING:
                    return count
                # An ICMP error of an answer sent earlier, reported now (udp(7)): nobody's loss here.
                continue
            peer = self._peer(sender)
            if self._witness is not None:
                self._witness(Received(0, peer.address, data))
            if truncated:
                self._drop(peer, f"a datagram of more than {self._largest} bytes", Why.SIZE)
            else:
                self._answer(data, peer, sender, ancillary)
        return BATCH

    def _answer(self, data: bytes, peer: Peer, sender: Any, ancillary: Any) -> None:
        refusal = self._gate.refusal(peer.address)
        if refusal is None and self._guard is not None:
            refusal = self._guard.refusal(peer.address)
        if refusal is not None:
            self._drop(peer, *refusal)
            return
        try:
            answer = self._job.service.answer(data, peer)
        except Exception as error:
            if self._observe is not None:
                self._observe(Failed(0, peer.address, error))
            return
        if answer is None:
            return
        if not sender:
            self._drop(peer, "the sender has no address (it did not bind one)", Why.NAMELESS)
            return
        try:
            send_datagram(self.socket, answer, sender, ancillary)
        except OSError as error:
            self._drop(peer, f"sending {len(answer)} bytes: {errno_text(error.errno or 0)}", Why.UNSENT)
        else:
            if self._witness is not None:
                self._witness(Sent(0, peer.address, answer))

    def _new_peer(self, sender: Any) -> Peer:
        local = Address.of(self.socket.family, self.socket.getsockname())
        return Peer(Address.of(self.socket.family, sender), local, boundaries=True)

    def _drop(self, peer: Peer, reason: str, why: Why) -> None:
        if self._observe is not None:
            self._observe(Dropped(peer.address, reason, why))
