import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
for size in (10, 1000):
    s.sendto(bytes(size), ("127.0.0.1", int(sys.argv[1])))
    print(s.recv(100))
