import socket, sys

s = socket.socket()
s.connect(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"ping")
print(s.recv(100))
