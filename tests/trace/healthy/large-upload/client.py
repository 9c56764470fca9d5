import socket, sys

size = 6_000_000
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"%d\n" % size)
    s.sendall(bytes(size))
    print(s.recv(100))
