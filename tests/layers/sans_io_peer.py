"""Two ends in memory: a conversation that speaks TLS, and a client of the standard library."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bothends.endpoints import Address
from bothends.services.base import Conversation, Peer, Post, nowhere
from bothends.testing.tls_client import TlsEnd

PEER = Peer(Address("inet", "192.0.2.1", 5000), Address("inet", "192.0.2.2", 443), connection=3)


class Script(Conversation):
    """Says again what it hears, and remembers what it was asked."""

    def __init__(self, peer: Peer = PEER, post: Post = nowhere) -> None:
        self.who = peer
        self.post = post
        self.heard = b""
        self.ends = 0
        self.leaves = 0
        self.closes = 0
        self.last = b""

    def receive(self, data: bytes) -> bytes:
        self.heard += data
        return data

    def end(self) -> bytes:
        self.ends += 1
        return self.last

    def leave(self) -> bytes:
        self.leaves += 1
        return self.last

    def closed(self) -> None:
        self.closes += 1


Cutter = Callable[[bytes], Iterator[bytes]]


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def single(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        yield data[at : at + 1]


class Dialogue:
    """Moves bytes between the two until nothing moves; `cut` says in which chunks."""

    def __init__(self, server: Conversation, client: TlsEnd, cut: Cutter = whole) -> None:
        self.server = server
        self.client = client
        self.cut = cut
        self.to_client = b""
        self.to_client += server.start()

    def run(self, data: bytes | None = None) -> None:
        """Bytes of the client's (by default whatever it has to say), and all that follows from them."""
        out = self.client.step() if data is None else data
        while True:
            for chunk in self.cut(out) if out else ():
                if self.server.done:
                    break
                self.to_client += self.server.receive(chunk)
            if self.server.pulls and not self.server.done:
                self.to_client += self.server.more()
            if not self.to_client:
                return
            self.client.incoming.write(self.to_client)
            self.to_client = b""
            out = self.client.step()

    def say(self, data: bytes) -> None:
        self.run(self.client.say(data))

    def finish(self) -> None:
        """The client half-closes by close_notify."""
        self.run(self.client.finish())

    def end(self) -> None:
        """The client's connection is over."""
        self.client.incoming.write(self.server.end())
        self.client.step()
