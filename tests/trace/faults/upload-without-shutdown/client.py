import socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for row in range(2000):
    s.sendall(b"%d;measured;%d\n" % (row, row * row))
print(s.recv(64).decode())
