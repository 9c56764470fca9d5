"""The checksum service: reads to the end of the stream, answers the sum."""
import hashlib
import socket
import sys
import time

listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
while True:
    conn, _ = listener.accept()
    digest = hashlib.sha256()
    with conn:
        while data := conn.recv(65536):
            digest.update(data)
        time.sleep(2)  # the archive is slow
        conn.sendall(digest.hexdigest().encode() + b"\n")
