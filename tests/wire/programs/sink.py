"""Receive one TCP connection until EOF; print the number of bytes and their SHA-256. Argument: the port."""

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
    # One write, because other programs write to the same output.
    print(f"received {count} {digest.hexdigest()}\n", end="", flush=True)
