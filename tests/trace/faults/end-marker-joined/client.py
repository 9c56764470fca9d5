import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(bytes(range(256)) * 70)
    s.send(b"DONE")
    print(s.recv(1024))
