import socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    command, peer = s.recvfrom(100)
    if command == b"time":
        s.sendto(time.ctime().encode(), peer)
