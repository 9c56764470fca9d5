import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(bytes(50_000))
    s.shutdown(socket.SHUT_WR)
    print(s.makefile().read())
