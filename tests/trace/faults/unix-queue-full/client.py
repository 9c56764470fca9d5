import socket

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect("events.sock")
for number in range(100):
    s.send(b"event %d" % number)
print("done")
