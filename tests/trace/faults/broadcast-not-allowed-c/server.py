import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", int(sys.argv[1])))
while True:
    question, peer = s.recvfrom(100)
    s.sendto(b"here", peer)
