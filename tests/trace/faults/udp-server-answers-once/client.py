import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
for i in range(2):
    s.sendto(b"msg %d" % i, ("127.0.0.1", int(sys.argv[1])))
    print(s.recvfrom(1024))
