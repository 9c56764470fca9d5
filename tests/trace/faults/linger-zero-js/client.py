import socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"all of it, please")
size = 0
while piece := s.recv(4096):
    size += len(piece)
print(size)
