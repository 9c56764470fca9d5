import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
count = 0
while True:
    data, peer = s.recvfrom(1500)
    count += 1
    if count % 10 == 0:
        s.sendto(b"ack %d" % count, peer)
