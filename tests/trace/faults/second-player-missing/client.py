import socket
import sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print(s.recv(100).decode())
while True:
    print(s.recv(100).decode())
    s.sendall(b"4")
