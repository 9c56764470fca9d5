"""A clock: answers each datagram, even an empty one, with the time.

Run it:
    python examples/clock.py
    bothends connect udp://127.0.0.1:12000 --send ""
"""

import sys
import time

from bothends import datagram, serve


@datagram
def clock(_request: bytes) -> bytes:
    return time.strftime("%Y-%m-%d %H:%M:%S %z").encode()


if __name__ == "__main__":
    server = serve(clock, *(sys.argv[1:] or ["udp://127.0.0.1:12000"]))
    print("listening on", *server.endpoints, flush=True)
    server.run()
