"""Receives one TCP connection to its end; shows how much came, and its SHA-256. Argument: the port."""

import hashlib
import socket
import sys

with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as listener:
    connection, _ = listener.accept()
    with connection:
        digest, count = hashlib.sha256(), 0
        while data := connection.recv(1 << 18):
            digest.update(data)
            count += len(data)
    print(f"received {count} {digest.hexdigest()}\n", end="", flush=True)  # one write: others write here too
