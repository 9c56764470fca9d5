import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"numbers\n")
    size = 0
    while data := s.recv(4096):
        size += len(data)
    print(size)
