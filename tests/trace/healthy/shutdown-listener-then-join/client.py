import socket, sys
for m in (b"x" * 10000, b"QUIT"):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    s.sendall(m)
    s.shutdown(socket.SHUT_WR)
    print(s.makefile().read())
    s.close()
