import socket
import sys

address = ("127.0.0.1", int(sys.argv[1]))
with socket.create_connection(address) as a, socket.create_connection(address) as b:
    for i in range(3):
        b.sendall(b"b%d\n" % i)
        print("b", b.recv(100), flush=True)
        a.sendall(b"a%d\n" % i)
        print("a", a.recv(100), flush=True)
