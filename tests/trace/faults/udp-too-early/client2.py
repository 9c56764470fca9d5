import socket, sys, time

time.sleep(0.6)  # reads its configuration
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    data, peer = s.recvfrom(100)
    s.sendto(b"welcome", peer)
