import socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for number in range(60):
    s.send(b"key%d\n" % number)
    s.send(b"value\n")
    s.recv(100)
