import socket
import sys

s = socket.socket()
for word in ["one", "two", "three"]:
    s.connect(("127.0.0.1", int(sys.argv[1])))
    s.sendall(word.encode())
    print(s.recv(1024).decode())
