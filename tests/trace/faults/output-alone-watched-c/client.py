import sys
import socket
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for q in (b"first\n", b"second\n"):
    s.sendall(q); print(s.recv(100))
