import socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
s.sendall(b"hello\n")
