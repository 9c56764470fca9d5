import socket

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("collector.sock")
while True:
    print(len(s.recv(1 << 20)))
