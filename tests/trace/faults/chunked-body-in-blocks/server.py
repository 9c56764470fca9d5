import socket, sys
ls = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print(ls.getsockname()[1], flush=True)
def read_exact(c, n):
    b = b""
    while len(b) < n:
        d = c.recv(n - len(b))
        if not d: raise EOFError
        b += d
    return b
while True:
    c, _ = ls.accept()
    h = b""
    while b"\r\n\r\n" not in h:
        h += read_exact(c, 1)
    total = 0
    try:
        while True:
            total += len(read_exact(c, 1024))
    except EOFError:
        pass
    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    c.close()
