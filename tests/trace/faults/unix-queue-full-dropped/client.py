import socket, time

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.setblocking(False)
s.connect("log.sock")
for number in range(100):
    try:
        s.send(b"line %d" % number)
    except OSError:
        pass
time.sleep(1)
