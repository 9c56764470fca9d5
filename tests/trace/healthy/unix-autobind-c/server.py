import socket

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("control")
while True:
    data, peer = s.recvfrom(100)
    s.sendto(b"ok " + data, peer)
