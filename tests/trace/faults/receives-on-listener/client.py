import socket
import sys

s = socket.socket()
s.connect(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"hello")
print(s.recv(1024))
s.close()
