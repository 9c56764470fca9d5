"""A thread for each client: a slow answer delays no other client.

Run it:
    python examples/threads.py
    bothends connect 127.0.0.1 12000        # "wait" in one window, then "go" in another
"""

import sys
import threading

from bothends import message, serve

gate = threading.Semaphore(0)


@message
def answer(text: bytes) -> bytes:
    if text == b"wait":
        gate.acquire()  # blocks only this client's thread
    elif text == b"go":
        gate.release()
    return text.upper()


if __name__ == "__main__":
    server = serve(answer, *(sys.argv[1:] or ["tcp://127.0.0.1:12000"]), engine="threads")
    print("listening on", *server.endpoints, flush=True)
    server.run()
