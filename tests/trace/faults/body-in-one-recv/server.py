import sys
import socket, struct, hashlib
def read_message(c):
    head = c.recv(4)
    if len(head) < 4: return None
    (n,) = struct.unpack("!I", head)
    return c.recv(n)
w = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    c, peer = w.accept()
    total = 0
    while (m := read_message(c)) is not None:
        total += len(m)
        digest = hashlib.sha256(m).hexdigest()
        if m.startswith(b"END"):
            answer = f"{total} {digest}".encode()
            c.sendall(struct.pack("!I", len(answer)) + answer)
            break
    c.close()
