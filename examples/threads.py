"""A thread for each client: one whose answer takes long keeps nobody else waiting.

Run it:
    python examples/threads.py
    bothends connect 127.0.0.1 12000        # "wait" in one window, then "go" in another
"""

import sys
import threading

from bothends import message, serve

gate = threading.Semaphore(0)


@message
def answer(said: bytes) -> bytes:
    if said == b"wait":
        gate.acquire()  # only this client's thread stands here
    elif said == b"go":
        gate.release()
    return said.upper()


if __name__ == "__main__":
    server = serve(answer, *(sys.argv[1:] or ["tcp://127.0.0.1:12000"]), engine="threads")
    print("listening on", *server.endpoints, flush=True)
    server.run()
