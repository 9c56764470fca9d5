import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"HEAD /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n")
f = s.makefile("rb")
print(f.readline())
n = 0
while (h := f.readline()) not in (b"\r\n", b""):
    if h.lower().startswith(b"content-length:"):
        n = int(h.split(b":")[1])
print(len(f.read(n)))
