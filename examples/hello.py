"""Sends a greeting, answers once and closes: the first server of many courses.

Run it:
    python examples/hello.py
    bothends connect 127.0.0.1 12000
"""

import sys

from bothends import serve, stream
from bothends.services.base import Conversation


class Hello(Conversation):
    def start(self) -> bytes:
        return b"thank you for connecting\n"

    def receive(self, data: bytes) -> bytes:
        self.done = True
        return b"back to ya client\n"


hello = stream(Hello)

if __name__ == "__main__":
    server = serve(hello, *(sys.argv[1:] or ["tcp://127.0.0.1:12000"]))
    print("listening on", *server.endpoints, flush=True)
    server.run()
