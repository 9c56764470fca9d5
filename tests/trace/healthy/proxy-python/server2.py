import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
while True:
    conn, _ = listener.accept()
    with conn, conn.makefile("rb") as stream:
        for line in stream:
            conn.sendall(b"upstream: " + line)
