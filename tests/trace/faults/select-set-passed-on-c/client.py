import socket
import sys

address = ("127.0.0.1", int(sys.argv[1]))
with socket.create_connection(address) as a, socket.create_connection(address) as b:
    for i in range(3):
        for name, s in (("a", a), ("b", b)):
            s.sendall(b"ping %d" % i)
            print(name, s.recv(100), flush=True)
