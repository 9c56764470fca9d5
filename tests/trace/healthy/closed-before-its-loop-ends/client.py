import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for text in b"one", b"quit":
        s.sendall(text)
        print(s.recv(1000))
    print(s.recv(1000))
