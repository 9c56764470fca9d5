import socket

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("log.sock")
while True:
    print("log:", s.recv(2000))
