"""A conversation with state: it counts the messages and ends after "bye". A message is a line.

Run it:
    python examples/reply.py
    bothends connect 127.0.0.1 12000
"""

import sys

from bothends import serve, stream
from bothends.framing import Lines
from bothends.services.base import Conversation


class Reply(Conversation):
    def __init__(self) -> None:
        self.decoder = Lines().decoder()
        self.count = 0

    def receive(self, data: bytes) -> bytes:
        return self.answer(self.decoder.feed(data))

    def end(self) -> bytes:
        return self.answer(self.decoder.end())

    def answer(self, lines: list[bytes]) -> bytes:
        answers = b""
        for line in lines:
            self.count += 1
            answers += b"message %d from you: %b\n" % (self.count, line)
            if line == b"bye":
                self.done = True
                break
        return answers


reply = stream(Reply)

if __name__ == "__main__":
    server = serve(reply, *(sys.argv[1:] or ["tcp://127.0.0.1:12000"]))
    print("listening on", *server.endpoints, flush=True)
    server.run()
