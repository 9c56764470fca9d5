import socket
import sys

address = ("127.0.0.1", int(sys.argv[1]))
with socket.create_connection(address) as a:
    print("a", a.recv(100))
    a.sendall(b"one\n")
    print("a", a.recv(100))
    with socket.create_connection(address) as b:
        print("b", b.recv(100))
        for i in range(3):
            a.sendall(b"a%d\n" % i)
            b.sendall(b"b%d\n" % i)
            print("b", b.recv(100))
            print("a", a.recv(100))
