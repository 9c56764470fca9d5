import socket, sys

sockets = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(4)]
for number, s in enumerate(sockets):
    s.sendall(b"hello from %d" % number)
for s in sockets:
    print(s.recv(100))
