import socket
import sys

alice = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
alice.sendall(b"hi from alice")
print(alice.recv(1024))
bob = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
bob.sendall(b"hi from bob")
print(bob.recv(1024))
