import socket, sys

connections = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(3)]
for turn in range(4):
    for s in connections:
        s.sendall(b"turn %d" % turn)
        s.recv(100)
for s in connections:
    s.close()
