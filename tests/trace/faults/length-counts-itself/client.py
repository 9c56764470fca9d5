import socket, struct, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
m = b"hello world"
s.sendall(struct.pack("!I", len(m) + 4) + m)
print(s.recv(100))
