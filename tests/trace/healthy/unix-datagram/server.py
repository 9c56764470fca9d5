import socket

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("server.sock")
while True:
    data, peer = s.recvfrom(1000)
    s.sendto(data + b"!", peer)
