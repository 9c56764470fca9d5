import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"weather".ljust(64))
    print(s.recv(100))
