import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    with conn, conn.makefile("r") as lines:
        for line in lines:
            conn.sendall(line.upper().encode())
