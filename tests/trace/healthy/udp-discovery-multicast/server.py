import socket, struct, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", int(sys.argv[1])))
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4sl", socket.inet_aton("239.255.7.7"), socket.INADDR_ANY))
while True:
    data, peer = s.recvfrom(1500)
    if data == b"M-SEARCH":
        s.sendto(b"printer", peer)
