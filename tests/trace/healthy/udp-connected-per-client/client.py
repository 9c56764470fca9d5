import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
s.connect(("127.0.0.1", int(sys.argv[1])))
for number in range(4):
    s.send(b"%d" % number)
    print(s.recv(100))
