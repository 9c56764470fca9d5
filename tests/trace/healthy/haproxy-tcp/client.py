import socket, sys

for turn in range(2):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        s.sendall(b"via haproxy %d\n" % turn)
        print(s.recv(100))
