import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
with conn, conn.makefile("rb") as stream:
    size = int(stream.readline())
    left = size
    while left:
        left -= len(stream.read(min(left, 100_000)))
    conn.sendall(b"stored %d\n" % size)
