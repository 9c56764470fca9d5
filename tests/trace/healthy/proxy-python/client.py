import socket, sys

for turn in range(2):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        s.sendall(b"through a proxy, %d\n" % turn)
        print(s.recv(100))
        s.sendall(b"and again\n")
        print(s.recv(100))
        s.shutdown(socket.SHUT_WR)
        assert s.recv(100) == b""
