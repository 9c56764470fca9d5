import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
expected = count = 0
while True:
    packet, peer = s.recvfrom(1100)
    count += 1
    number = int(packet[:4])
    if number == expected and count % 7:
        expected += 1
    s.sendto(b"%04d" % expected, peer)
