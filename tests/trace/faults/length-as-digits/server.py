import sys
import socket


def read_exactly(conn, n):
    parts = []
    while n:
        chunk = conn.recv(min(n, 65536))
        if not chunk:
            raise EOFError
        parts.append(chunk)
        n -= len(chunk)
    return b"".join(parts)


ls = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, peer = ls.accept()
try:
    while True:
        header = read_exactly(conn, 4)
        body = read_exactly(conn, int(header.hex()))
        print("message", len(body), body.decode())
        conn.sendall(b"+")
except EOFError:
    print("peer closed")
conn.close()
