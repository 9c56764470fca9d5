import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
for number in range(4):
    s.sendto(b"number %d" % number, ("127.0.0.1", int(sys.argv[1])))
    print(s.recvfrom(1500))
s.close()
