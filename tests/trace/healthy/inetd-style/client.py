import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"some text for tr\n")
    s.shutdown(socket.SHUT_WR)
    print(s.makefile().read())
