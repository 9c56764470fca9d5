"""A chat: each client's lines go to all others. `push` sends to a peer that has sent nothing.

Run it:
    python examples/chat.py
    bothends connect 127.0.0.1 12000        # in two windows
"""

import sys

from bothends import serve
from bothends.services.base import Conversation, Peer, Push, Service


class Member(Conversation):
    def __init__(self, others: dict[Conversation, Push], name: str) -> None:
        self.others = others
        self.name = name

    def start(self) -> bytes:
        return f"you are {self.name}, others here: {len(self.others) - 1}\n".encode()

    def receive(self, data: bytes) -> bytes:
        for other, push in self.others.items():
            if other is not self:
                push(f"{self.name}: ".encode() + data)
        return b""

    def closed(self) -> None:
        del self.others[self]


class Chat(Service):
    name = "chat"
    pushes = True
    datagrams = False
    members: dict[Conversation, Push]

    def __init__(self) -> None:
        self.members = {}

    def open(self, peer: Peer, push: Push) -> Conversation:
        member = Member(self.members, str(peer.address))
        self.members[member] = push
        return member


if __name__ == "__main__":
    server = serve(Chat(), *(sys.argv[1:] or ["tcp://127.0.0.1:12000"]))
    print("listening on", *server.endpoints, flush=True)
    server.run()
