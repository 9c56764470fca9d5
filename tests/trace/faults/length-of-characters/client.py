import socket
import sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
name = "Zoë Grünwald"
s.sendall(f"{len(name)}\n{name}".encode())
print(s.recv(100))
s.recv(100)
