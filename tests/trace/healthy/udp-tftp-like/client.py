import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.sendto(b"RRQ file", ("127.0.0.1", int(sys.argv[1])))
for block in range(1, 4):
    data, peer = s.recvfrom(600)
    s.sendto(b"ACK" + data[4:], peer)
s.close()
