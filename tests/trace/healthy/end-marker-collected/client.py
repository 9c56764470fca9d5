import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(bytes(range(256)) * 70)
    s.sendall(b"DONE")
    data = b""
    while not data.endswith(b"you"):
        data += s.recv(1024)
    print(data)
