import socket
import sys

address = ("127.0.0.1", int(sys.argv[1]))
thinker = socket.create_connection(address)
thinker.sendall(b"join\n")
print(thinker.recv(100))
with socket.create_connection(address) as other:
    other.sendall(b"join\n")
    print(other.recv(100))
