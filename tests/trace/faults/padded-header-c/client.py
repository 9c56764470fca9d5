import socket
import struct
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    text = b"measure the temperature"
    s.sendall(struct.pack("!BI", 1, len(text)) + text)
    print(s.recv(1024))
