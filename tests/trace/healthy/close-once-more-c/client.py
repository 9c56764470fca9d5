import socket
import sys

for _ in range(3):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        s.sendall(b"hello")
        print(s.recv(100))
