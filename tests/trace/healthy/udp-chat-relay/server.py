import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
members = set()
while True:
    line, peer = s.recvfrom(1000)
    members.add(peer)
    for each in members - {peer}:
        s.sendto(line, each)
