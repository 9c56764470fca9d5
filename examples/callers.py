"""A process for each client, which prints when the client connects and when it has gone.

Run it:
    python examples/callers.py
    bothends connect 127.0.0.1 12000
"""

import os
import sys

from bothends import serve, stream
from bothends.services.base import Conversation, Peer


def print_line(line: str) -> None:
    print(line + "\n", end="", flush=True)  # one write, so that lines of two processes don't mix


class CallerConversation(Conversation):
    def __init__(self, peer: Peer) -> None:
        self.caller = peer.address

    def start(self) -> bytes:
        print_line(f"{self.caller} called, process {os.getpid()} answers")
        return f"you are {self.caller}\n".encode()

    def receive(self, data: bytes) -> bytes:
        return data.upper()

    def closed(self) -> None:
        print_line(f"{self.caller} has gone")


call = stream(CallerConversation)

if __name__ == "__main__":
    server = serve(call, *(sys.argv[1:] or ["tcp://127.0.0.1:12000"]), engine="fork")
    print("listening on", *server.endpoints, flush=True)
    server.run()
