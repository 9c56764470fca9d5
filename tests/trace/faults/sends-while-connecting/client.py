import socket, sys

s = socket.socket()
s.setblocking(False)
s.connect_ex(("127.0.0.1", int(sys.argv[2])))
s.sendall(b"GET status\n")
print(s.recv(100))
