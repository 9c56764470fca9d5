import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"anybody?", ("127.0.0.1", int(sys.argv[1])))
print(s.recv(100))
