import socket, sys, threading


def handle(conn):
    with conn, conn.makefile("rwb", buffering=0) as stream:
        for line in stream:
            stream.write(line)


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    threading.Thread(target=handle, args=(conn,), daemon=True).start()
