import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
for count in (3, 30):
    s.sendto(b"word " * count + b";", ("127.0.0.1", int(sys.argv[1])))
    print(s.recv(100))
