import socket, sys
ls = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print(ls.getsockname()[1], flush=True)
while True:
    c, _ = ls.accept()
    f = c.makefile("rb")
    n = 0
    while (line := f.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            n = int(line.split(b":")[1])
    body = f.read(n)
    c.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    c.close()
