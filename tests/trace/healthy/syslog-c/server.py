import os, socket

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("log")
while True:
    print(s.recv(2000))
