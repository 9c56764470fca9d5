import socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for command in (b"SET a 1\n", b"SET b 2\n", b"GET a\n"):
    s.sendall(command)
got = b""
while got.count(b"\r\n") < 3:
    got += s.recv(4096)
print(got)
s.close()
