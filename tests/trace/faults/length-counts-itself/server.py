import socket, sys
ls = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print(ls.getsockname()[1], flush=True)
import struct
def exact(c, n):
    b = b""
    while len(b) < n:
        d = c.recv(n - len(b))
        if not d: raise EOFError
        b += d
    return b
while True:
    c, _ = ls.accept()
    try:
        while True:
            n, = struct.unpack("!I", exact(c, 4))
            c.sendall(exact(c, n).upper())
    except EOFError:
        c.close()
