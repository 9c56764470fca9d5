import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
expected, count, parts = 0, 0, []
while True:
    packet, peer = s.recvfrom(1100)
    count += 1
    if count % 4 == 3:
        continue  # a lossy network
    if packet[0] == expected:
        parts.append(packet[1:])
        expected ^= 1
    if count % 5:
        s.sendto(packet[:1], peer)
