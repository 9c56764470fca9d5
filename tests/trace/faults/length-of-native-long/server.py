import socket, struct, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
c, a = s.accept()
def exactly(n):
    data = b""
    while len(data) < n:
        part = c.recv(min(4096, n - len(data)))
        if not part:
            raise EOFError
        data += part
    return data
while True:
    n = struct.unpack("L", exactly(struct.calcsize("L")))[0]
    print(len(exactly(n)))
    c.sendall(b"OK")
