import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
f = s.makefile("rb")
s.sendall(b"USER x\nPASS y\n")
print(f.readline()); print(f.readline())
