import socket
import sys

port = int(sys.argv[1])
one = socket.create_connection(("127.0.0.1", port))
two = socket.create_connection(("127.0.0.1", port))
one.sendall(b"first")
print(one.recv(100))
two.sendall(b"second")
print(two.recv(100))
one.close()
two.sendall(b"third")
print(two.recv(100))
two.close()
