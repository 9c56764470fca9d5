import os, socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(os.urandom(30_000))
print(s.recv(64).decode())
