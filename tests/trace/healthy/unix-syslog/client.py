import socket

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect("log.sock")
for number in range(3):
    s.send(b"<14>message %d" % number)
s.close()
