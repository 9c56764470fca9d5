import sys
import hashlib
import socket

srv = socket.create_server(("127.0.0.1", int(sys.argv[1])))


def receive(conn, size):
    blocks = []
    while size:
        block = conn.recv(min(size, 65536))
        if not block:
            raise ConnectionError("upload cut short")
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)


while True:
    conn, _ = srv.accept()
    with conn, conn.makefile("rwb") as f:
        for line in f:
            verb, name, size = line.decode().split()
            if verb == "PUT":
                data = receive(conn, int(size))
                f.write(b"201 %s\n" % hashlib.md5(data).hexdigest().encode())
            else:
                f.write(b"400 %s\n" % verb.encode())
            f.flush()
