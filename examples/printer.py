"""Prints the messages of many clients and answers nothing. One thread waits for all, with select().

Run it:
    python examples/printer.py
    bothends connect 127.0.0.1 12000        # in as many windows as you like
"""

import sys

from bothends import serve, stream
from bothends.escaping import escape
from bothends.services.base import Peer


@stream
def show(data: bytes, peer: Peer) -> None:
    print(f"{peer.address}: {escape(data)}", flush=True)  # escaped: a client must not control the terminal


if __name__ == "__main__":
    server = serve(show, *(sys.argv[1:] or ["tcp://127.0.0.1:12000"]), engine="select")
    print("listening on", *server.endpoints, flush=True)
    server.run()
