import socket
import sys

for text in b"one", b"two":
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        s.sendall(text)
        print(s.recv(1000))
