import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as one:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as two:
        one.sendall(b"a b 5\n")
        two.sendall(b"b a 7\n")
        print(one.recv(100), two.recv(100))
