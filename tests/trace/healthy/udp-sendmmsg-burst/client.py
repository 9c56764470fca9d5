import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.1", int(sys.argv[1])))
for number in range(100):
    s.send(b"%d" % number)
s.send(b"end")
print(s.recv(100))
s.close()
