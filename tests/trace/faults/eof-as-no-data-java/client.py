import socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"no newline here")
s.shutdown(socket.SHUT_WR)
print(s.recv(100))
