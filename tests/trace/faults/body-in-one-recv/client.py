import sys
import socket, struct
def send(s, body): s.sendall(struct.pack("!I", len(body)) + body)
def exact(s, n):
    out = b""
    while len(out) < n:
        d = s.recv(n - len(out))
        if not d: raise EOFError(f"{len(out)} of {n}")
        out += d
    return out
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
send(s, b"name=report.txt")
send(s, b"abcdefghijklmnop" * 200_000)
send(s, b"END")
n, = struct.unpack("!I", exact(s, 4))
print(exact(s, n))
