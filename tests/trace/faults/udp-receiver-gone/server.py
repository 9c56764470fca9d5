import socket, sys, time

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("127.0.0.1", int(sys.argv[1])))
    data, peer = s.recvfrom(100)
    s.sendto(data.upper(), peer)
time.sleep(5)
