import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"compute\n")
s.shutdown(socket.SHUT_WR)
d = s.recv(100)
print("answer:", d)
sys.exit(0 if d else 1)
