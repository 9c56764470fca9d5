import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    with conn, conn.makefile("rw") as stream:
        for line in stream:
            stream.write(line[::-1].strip() + "\n")
