import socket
import sys

address = "127.0.0.1", int(sys.argv[1])
with socket.create_connection(address) as one:
    one.sendall(b"one")
    one.recv(1)
with socket.create_connection(address) as two:
    two.recv(10)
    two.sendall(b"two\n")
    print(two.recv(100))
