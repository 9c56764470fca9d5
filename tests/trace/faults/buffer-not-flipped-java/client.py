import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.settimeout(5)
s.sendall(b"hello\n")
f = s.makefile("rb")
line = f.readline()
assert line == b"hello\n", line
