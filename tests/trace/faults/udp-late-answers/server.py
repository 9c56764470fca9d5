import socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
first = True
while True:
    data, peer = s.recvfrom(100)
    if first:
        time.sleep(1.2)  # loads its table
        first = False
    s.sendto(str(int(data) ** 2).encode(), peer)
