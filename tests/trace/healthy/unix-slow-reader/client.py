import socket

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect("jobs")
for number in range(40):
    s.send(b"job %d" % number)
s.close()
