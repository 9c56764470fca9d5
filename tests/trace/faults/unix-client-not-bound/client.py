import socket

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect("server.sock")
s.send(b"hello")
print(s.recv(1000))
