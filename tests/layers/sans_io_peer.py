"""A TLS conversation and a client of the standard library, connected in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bothends.endpoints import Address
from bothends.services.base import Conversation, Peer, Push, discard_push
from bothends.testing.tls_client import SansIoTlsClient

PEER = Peer(Address("inet", "192.0.2.1", 5000), Address("inet", "192.0.2.2", 443), connection=3)


class RecordingConversation(Conversation):
    """Echo, and record all calls."""

    def __init__(self, peer: Peer = PEER, push: Push = discard_push) -> None:
        self.peer = peer
        self.push = push
        self.received = b""
        self.end_calls = 0
        self.close_calls = 0
        self.closed_calls = 0
        self.final_reply = b""

    def receive(self, data: bytes) -> bytes:
        self.received += data
        return data

    def end(self) -> bytes:
        self.end_calls += 1
        return self.final_reply

    def close(self) -> bytes:
        self.close_calls += 1
        return self.final_reply

    def closed(self) -> None:
        self.closed_calls += 1


Chunker = Callable[[bytes], Iterator[bytes]]


def one_chunk(data: bytes) -> Iterator[bytes]:
    yield data


def single_bytes(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        yield data[at : at + 1]


class InMemoryExchange:
    """Move bytes between both ends until neither has output; `chunker` splits the client's bytes."""

    def __init__(self, server: Conversation, client: SansIoTlsClient, chunker: Chunker = one_chunk) -> None:
        self.server = server
        self.client = client
        self.chunker = chunker
        self.to_client = b""
        self.to_client += server.start()

    def run(self, data: bytes | None = None) -> None:
        """Deliver bytes of the client (by default its pending output) and all replies."""
        out = self.client.step() if data is None else data
        while True:
            for chunk in self.chunker(out) if out else ():
                if self.server.done:
                    break
                self.to_client += self.server.receive(chunk)
            if self.server.wants_pull and not self.server.done:
                self.to_client += self.server.produce()
            if not self.to_client:
                return
            self.client.incoming.write(self.to_client)
            self.to_client = b""
            out = self.client.step()

    def send(self, data: bytes) -> None:
        self.run(self.client.encrypt(data))

    def finish(self) -> None:
        """Half-close from the client by close_notify."""
        self.run(self.client.close_notify())

    def end(self) -> None:
        """Signal EOF of the connection to the server."""
        self.client.incoming.write(self.server.end())
        self.client.step()
