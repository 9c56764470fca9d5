import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"QUIT\n")
f = s.makefile()
print(f.readline())
print(f.readline())
