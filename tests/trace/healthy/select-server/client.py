import socket, sys

sockets = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(3)]
for number in range(5):
    for s in sockets:
        s.sendall(b"round %d\n" % number)
    for s in sockets:
        print(s.recv(100))
for s in sockets:
    s.close()
