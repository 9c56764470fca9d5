"""Capitals over TCP and UDP at once. The service is one function.

Run it:
    python examples/shout.py
    bothends connect 127.0.0.1 12000
    bothends connect udp://127.0.0.1:12000

The same function with a log and all options: bothends serve examples/shout.py tcp://:12000
"""

import sys

from bothends import message, serve


@message
def shout(text: bytes) -> bytes:
    return text.upper()


if __name__ == "__main__":
    server = serve(shout, *(sys.argv[1:] or ["tcp://127.0.0.1:12000", "udp://127.0.0.1:12000"]))
    print("listening on", *server.endpoints, flush=True)
    server.run()
