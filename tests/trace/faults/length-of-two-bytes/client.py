import socket
import struct
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for word in (b"hello", b"and again"):
        s.sendall(struct.pack("!H", len(word)) + word)
    print(s.recv(100))
