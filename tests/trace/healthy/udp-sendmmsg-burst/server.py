import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.bind(("127.0.0.1", int(sys.argv[1])))
seen = 0
while True:
    data, peer = s.recvfrom(1500)
    seen += 1
    if data == b"end":
        s.sendto(b"%d" % seen, peer)
