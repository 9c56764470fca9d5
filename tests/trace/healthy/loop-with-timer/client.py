import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for text in (b"left", b"right"):
        s.sendall(text)
        print(s.recv(100))
    s.shutdown(socket.SHUT_WR)
