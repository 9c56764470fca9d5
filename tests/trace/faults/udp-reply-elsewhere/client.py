import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"1", ("127.0.0.1", int(sys.argv[1])))
print(s.recvfrom(100))
