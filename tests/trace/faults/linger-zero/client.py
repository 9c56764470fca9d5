import socket, sys, time

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"Ada")
size = 0
while piece := s.recv(65536):
    size += len(piece)
    time.sleep(0.01)
print(size)
