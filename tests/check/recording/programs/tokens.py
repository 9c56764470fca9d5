"""A server whose replies differ each time: `tokens.py PORT [wrong]`.

It greets with the time, gives a token on LOGIN, and sends the word after a token back in capitals.
"""

from __future__ import annotations

import random
import socketserver
import sys
import time


class Session(socketserver.StreamRequestHandler):
    """A connection with its token."""

    def handle(self) -> None:
        self.say(f"ready at {time.time_ns()}")
        token = ""
        for line in self.rfile:
            word, *rest = line.decode().split()
            if word == "LOGIN":
                token = f"t{random.randrange(10**6, 10**7)}"
                self.say(f"TOKEN {token}")
            elif word == token:
                reply = rest[0].swapcase() if "wrong" in sys.argv else rest[0].upper()
                self.say(f"OK {reply} in {random.random():.3f} ms")
            else:
                self.say("NO")
                return

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\n".encode())


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True


Server(("127.0.0.1", int(sys.argv[1])), Session).serve_forever()
