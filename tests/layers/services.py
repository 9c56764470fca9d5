"""Services behind layers, to be made in an engine's own process."""

from __future__ import annotations

import hashlib

from bothends.layers import ProxyLayer, TlsLayer, server_context
from bothends.layers.wrapping import Open
from bothends.services.base import Conversation, Peer, Post, Service


class Again(Conversation):
    """Says what it hears, and at the end the SHA-256 of it all."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    def receive(self, data: bytes) -> bytes:
        self._sum.update(data)
        return data

    def end(self) -> bytes:
        return self._sum.digest()


class Who(Conversation):
    """Says whom it has been told it talks to, and is done."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def start(self) -> bytes:
        self.done = True
        return f"{self._peer.address} at {self._peer.local}".encode()

    def receive(self, data: bytes) -> bytes:
        return b""


class Layered(Service):
    """What an opener opens, as a service."""

    name = "layered"
    datagrams = False

    def __init__(self, opener: Open, *, posts: bool = False) -> None:
        self._open = opener
        self.posts = posts

    def open(self, peer: Peer, post: Post) -> Conversation:
        return self._open(peer, post)


class Room:
    """Whatever one says, all are told."""

    def __init__(self) -> None:
        self.members: dict[int, Post] = {}

    def open(self, peer: Peer, post: Post) -> Conversation:
        return Member(self, peer.connection, post)


class Member(Conversation):
    """One of a room."""

    def __init__(self, room: Room, number: int, post: Post) -> None:
        self._room, self._number, self._post = room, number, post

    def start(self) -> bytes:
        self._room.members[self._number] = self._post
        return b"in"

    def receive(self, data: bytes) -> bytes:
        for post in list(self._room.members.values()):
            post(data)
        return b""

    def closed(self) -> None:
        self._room.members.pop(self._number, None)


def secret(certificate: str) -> Service:
    """Again, by TLS."""
    return Layered(TlsLayer(server_context(certificate)).wrap(lambda _peer, _post: Again()))


def secret_room(certificate: str) -> Service:
    """A room, by TLS."""
    return Layered(TlsLayer(server_context(certificate)).wrap(Room().open), posts=True)


def proxied(certificate: str) -> Service:
    """Who, by TLS, behind a proxy on this machine."""
    inside = TlsLayer(server_context(certificate)).wrap(lambda peer, _post: Who(peer))
    return Layered(ProxyLayer().wrap(inside))
