import socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
seen = {}
while True:
    data, peer = s.recvfrom(1500)
    seen[peer] = time.time()
